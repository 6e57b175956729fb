"""Requests become files, and a record becomes the same file again."""

import json
import os
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import longtake
from longtake.errors import BadInput, BadOutput, Conflict, InertMethod, UnknownModel, UnknownName
from longtake.methods import as_methods
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.pipelines import generate, read_record, regenerate

SMALL = {"frames": 5, "height": 16, "width": 16, "steps": 2}


def test_the_record_makes_the_same_file_bit_for_bit(tiny_folder, tmp_path):
    Image.effect_noise((40, 20), 80).convert("RGB").save(tmp_path / "first.png")
    out = tmp_path / "clip.mp4"
    (made,) = generate(
        "a red ball",
        model=tiny_folder,
        out=out,
        negative_prompt="blue",
        seed=9,
        guidance=2.5,
        scheduler="unipc",
        image=tmp_path / "first.png",
        **SMALL,
    )
    assert made.path == out and read_record(tmp_path / "clip.json") == made.record
    again = regenerate(tmp_path / "clip.json")
    assert again.path == tmp_path / "clip-again.mp4"
    assert again.path.read_bytes() == out.read_bytes()
    assert again.record.settings == made.record.settings and again.record.scheduler == made.record.scheduler


def test_the_threads_of_the_record_are_used_and_given_back(tiny_folder, tmp_path):
    generate("a red ball", model=tiny_folder, out=tmp_path / "clip.mp4", **SMALL)
    content = json.loads((tmp_path / "clip.json").read_text())
    before = torch.get_num_threads()
    content["threads"] = before + 1
    content["versions"]["torch"] = "0.1"
    (tmp_path / "clip.json").write_text(json.dumps(content))
    again = regenerate(tmp_path / "clip.json")
    assert again.record.threads == before + 1 and torch.get_num_threads() == before
    assert any("torch" in note and "was 0.1" in note for note in again.record.warnings)


def test_a_changed_picture_and_changed_weights_are_refused(tiny_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    Image.new("RGB", (16, 16), "red").save(tmp_path / "first.png")
    generate("a red ball", model=model, out=tmp_path / "clip.mp4", image=tmp_path / "first.png", **SMALL)
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "first.png")
    with pytest.raises(BadInput, match=r"first\.png.*has changed"):
        regenerate(tmp_path / "clip.json")

    generate("a red ball", model=model, out=tmp_path / "clip.mp4", **SMALL)
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["head.bias"] += 1
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(UnknownModel, match="another model under the same name"):
        regenerate(tmp_path / "clip.json")
    assert not (tmp_path / "clip-again.mp4").exists()


def test_several_clips_are_numbered_and_each_equals_its_single_run(tiny_folder, tmp_path):
    seen = []
    made = generate(
        "a red ball",
        model=tiny_folder,
        out=tmp_path / "clip.mp4",
        seed=3,
        count=2,
        on_step=lambda clip, done, steps: seen.append((clip, done, steps)),
        **SMALL,
    )
    assert [one.path.name for one in made] == ["clip-0.mp4", "clip-1.mp4"]
    assert [one.record.settings.seed for one in made] == [3, 4]
    assert seen == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]
    generate("a red ball", model=tiny_folder, out=tmp_path / "single.mp4", seed=4, **SMALL)
    assert (tmp_path / "single.mp4").read_bytes() == (tmp_path / "clip-1.mp4").read_bytes()


def test_the_command_in_the_record_asks_for_the_same(tiny_folder, tmp_path):
    (made,) = generate("a red ball", model=tiny_folder, out=tmp_path / "clip.mp4", **SMALL)
    assert "generate 'a red ball'" in made.record.command and "--size 16x16" in made.record.command
    assert str(tiny_folder) in made.record.command


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"out": "missing/clip.mp4"}, BadOutput),
        ({"out": "clip.txt"}, BadOutput),
        ({"count": 0}, BadInput),
        ({"scheduler": "eular"}, UnknownName),
        ({"frames": 6}, Exception),
    ],
)
def test_a_bad_request_writes_nothing(tiny_folder, tmp_path, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        generate(**{"prompt": "a red ball", "model": tiny_folder, **SMALL, **arguments})
    assert os.listdir(tmp_path) == []


def test_a_bad_path_is_known_before_the_model_is_loaded(tmp_path):
    with pytest.raises(BadOutput):
        generate("a red ball", model="no such model", out=tmp_path / "missing" / "clip.mp4")


# ------------------------------------------------------------------------------------------------------------- methods

SKIPPING = ["taylorseer:interval=2,last_full=false", "minmax8"]


def test_methods_are_written_down_and_made_again(tiny_folder, tmp_path):
    dense, applied = tmp_path / "dense.mp4", tmp_path / "applied.mp4"
    asked = {"model": tiny_folder, **SMALL, "steps": 4, "guidance": 3.0}
    (plain,) = generate("a red ball", out=dense, **asked)
    (made,) = generate("a red ball", out=applied, methods=as_methods(SKIPPING), **asked)
    assert made.record.settings.methods == ("taylorseer:interval=2,last_full=False", "minmax8")
    assert made.record.weights == plain.record.weights  # of the model, not of its replaced layers
    assert not plain.record.receipts and "--with" not in plain.record.command
    assert "--with taylorseer:interval=2,last_full=False+minmax8" in made.record.command
    cache, weights = made.record.receipts
    assert cache["branches"]["cond_uncond"] == {
        "computed": 2 * cache["sites"],
        "skipped": 2 * cache["sites"],
        "changed": 0,
    }
    assert 0 < cache["macs_done"] < cache["macs_dense"] and cache["notes"]["full_steps"] == [0, 2]
    assert weights["branches"]["weights"]["changed"] == weights["sites"] > 0
    with pytest.raises(BadInput, match="made with methods taylorseer"):
        regenerate(tmp_path / "applied.json")
    told = read_record(tmp_path / "applied.json")
    again = regenerate(tmp_path / "applied.json", methods=as_methods(told.settings.methods))
    assert again.path.read_bytes() == applied.read_bytes() != dense.read_bytes()
    assert again.record.receipts == made.record.receipts


def test_a_method_that_does_nothing_is_an_error_and_writes_nothing(tiny_folder, tmp_path):
    asked = {
        "model": tiny_folder,
        "out": tmp_path / "clip.mp4",
        "methods": as_methods(["taylorseer:interval=1"]),
        **SMALL,
    }
    with pytest.raises(InertMethod, match="taylorseer did nothing"):
        generate("a red ball", **asked)
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match="taylorseer did nothing"):
        (made,) = generate("a red ball", allow_inert=True, **asked)
    assert not made.record.receipts[0]["acted"]


def test_methods_that_cannot_be_combined_are_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(Conflict, match="delta-dit and taylorseer"):
        generate("a", model=tmp_path / "nothing", out=tmp_path / "a.mp4", methods=as_methods(["taylorseer+delta-dit"]))


def test_applied_to_a_pipeline_and_taken_away(tiny_folder):
    pipe = longtake.load(tiny_folder)
    asked = {**SMALL, "steps": 4, "guidance": 3.0}
    dense = pipe("a red ball", **asked)
    with longtake.apply(pipe, "cfg-interval:low=0.6,high=1", TaylorSeer(interval=3)) as stack:
        output = pipe("a red ball", **asked)
    assert [receipt.method for receipt in stack.receipts] == ["cfg-interval", "taylorseer"]
    assert output.record.receipts[0]["branches"]["guidance"] == {"computed": 2, "skipped": 2, "changed": 0}
    assert not torch.equal(output.latents, dense.latents)
    assert torch.equal(pipe("a red ball", **asked).latents, dense.latents)
