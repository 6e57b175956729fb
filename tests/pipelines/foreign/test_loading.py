"""Folders of diffusers, in the layout of their published models, through the front door."""

import json
from functools import cache

import pytest
import torch
from tiny_pipelines import FAMILIES, NEGATIVE, PROMPT, wan

import longtake
from longtake import cli
from longtake.errors import BadInput, UnknownModel
from longtake.pipelines.foreign import ForeignPipeline
from longtake.pipelines.generating import generate, regenerate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore:In CPU autocast:UserWarning")


def built(name):
    """The same weights every time."""
    torch.manual_seed(0)
    pipe = wan(boundary_ratio=0.8) if name == "wan-pair" else FAMILIES[name].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A family's name, or "wan-pair" -> a folder that save_pretrained wrote."""

    @cache
    def saved(name):
        path = tmp_path_factory.mktemp("models") / name
        built(name).save_pretrained(path)
        return path

    return saved


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_loads_as_the_pipeline_that_was_saved(name, folder):
    tiny, pipe = FAMILIES[name], longtake.load(folder(name))
    assert isinstance(pipe, ForeignPipeline) and pipe.transformer.dtype == torch.float32
    assert not any(weight.requires_grad for weight in pipe.transformer.parameters())
    size = {"frames": tiny.frames, "height": tiny.size, "width": tiny.size, "negative_prompt": NEGATIVE}
    if name == "allegro":  # tiles of the tiny clip's size, which are no part of a configuration
        pipe.pipe.vae.kernel, pipe.pipe.vae.stride = (8, 32, 32), (4, 16, 16)
    made, expected = (p(PROMPT, **size, steps=2, guidance=3.0) for p in (pipe, ForeignPipeline(built(name))))
    torch.testing.assert_close(made.latents, expected.latents)
    assert made.record.model == str(folder(name)) and made.record.weights == expected.record.weights != ""


def test_dtype_is_that_of_all_but_the_autoencoder_of_wan(folder):
    pipe = longtake.load(folder("wan"), dtype="bfloat16")
    assert (pipe.transformer.dtype, pipe.pipe.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert pipe.pipe.vae.dtype == torch.float32
    clip = pipe(PROMPT, frames=5, height=32, width=32, steps=1).clip.pixels
    assert clip.dtype == torch.float32 and clip.isfinite().all()
    assert longtake.load(folder("ltx"), dtype="bfloat16").pipe.vae.dtype == torch.bfloat16
    with pytest.raises(BadInput, match="'bfloat61'"):
        longtake.load(folder("wan"), dtype="bfloat61")
    with pytest.raises(BadInput, match="device 'abacus'"):
        longtake.load(folder("wan"), device="abacus")


def test_a_damaged_folder_is_one_line(folder, tmp_path):
    import shutil

    shutil.copytree(folder("latte"), tmp_path / "broken")
    (tmp_path / "broken" / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnknownModel, match="does not load as a pipeline") as caught:
        longtake.load(tmp_path / "broken")
    assert "\n" not in str(caught.value)


def test_a_clip_is_written_and_made_again(folder, tmp_path):
    """A pair of Wan 2.2, with a strength of guidance for each network, and a method."""
    from longtake.methods import as_methods

    out, methods = tmp_path / "clip.mp4", as_methods(["taylorseer:interval=2"])
    common = {"frames": 5, "height": 32, "width": 32, "steps": 4, "guidance": 3.0, "guidance_2": 2.0}
    (made,) = generate(PROMPT, model=folder("wan-pair"), out=out, methods=methods, **common)
    assert made.record.settings.guidance_2 == 2.0 and "--guidance-2 2" in made.record.command
    assert made.record.receipts[0]["acted"]
    again = regenerate(tmp_path / "clip.json", methods=methods)
    assert again.path.read_bytes() == out.read_bytes()
    for wrong, message in (
        ({"image": "a.png"}, "text alone"),
        ({"scheduler": "euler", "model": folder("latte"), "frames": 3}, "flow"),
    ):
        with pytest.raises(BadInput, match=message):
            generate(PROMPT, **{"model": folder("wan-pair"), "out": out, **common, "guidance_2": None, **wrong})


def test_the_command_line_takes_a_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    size = ["--frames", "5", "--size", "32x32", "--steps", "2"]
    monkeypatch.setattr("sys.argv", ["longtake", "generate", PROMPT, "--model", str(folder("wan")), *size, "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = json.loads(capsys.readouterr().out)[0]["record"]
    assert left.value.code == 0 and (tmp_path / "clip.mp4").exists()
    assert told["settings"]["guidance"] == 5.0 and told["fps"] == 16.0  # the model's own
    monkeypatch.setattr("sys.argv", ["longtake", "generate", PROMPT, "--model", str(folder("wan")), "--image", "a.png"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2


def test_methods_are_compared_on_a_folder(folder, tmp_path):
    report = longtake.compare(
        folder("wan"),
        ["taylorseer:interval=2"],
        prompts=[PROMPT],
        out=tmp_path / "report",
        steps=4,
        frames=5,
        height=32,
        width=32,
    )
    assert [row.name for row in report.rows] == ["dense", "taylorseer:interval=2"]
    assert report.rows[1].error is None and report.rows[1].mac_speedup > 1
