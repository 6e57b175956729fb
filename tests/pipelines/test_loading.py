"""Names of models: starters, folders, hub ids, and what is none of them."""

import json
import shutil

import pytest
import torch

from longtake.errors import BadInput, UnknownModel
from longtake.pipelines import load, loading
from longtake.pipelines.loading import load_tokenizer, starter_names


@pytest.fixture
def starters(tmp_path, monkeypatch, tiny_folder):
    """A stand-in for the shipped models: one pipeline called `starter`, and a folder that is none."""
    shutil.copytree(tiny_folder, tmp_path / "starters" / "starter")
    (tmp_path / "starters" / "readback").mkdir()
    monkeypatch.setattr(loading, "STARTERS", tmp_path / "starters")
    monkeypatch.chdir(tmp_path)


def test_only_pipelines_are_starters(starters):
    assert starter_names() == ("starter",)
    assert load().config._name_or_path == "starter"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("startr", r"'startr'.*Did you mean 'starter'\?"),
        ("/no/such/folder", "'/no/such/folder'"),
        ("no/such/thing", "'no/such/thing'"),
        ("someone/startr", r"'someone/startr'.*cannot be reached.*'starter'"),
        ("", "''"),
        ("bad name!", "'bad name!'"),
    ],
)
def test_an_unknown_name_is_one_line_that_names_the_nearest(starters, name, words):
    with pytest.raises(UnknownModel, match=words) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_pipeline_says_why(tmp_path):
    with pytest.raises(UnknownModel, match=r"model_index\.json is missing"):
        load(tmp_path)
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(UnknownModel, match="not a JSON object"):
        load(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanAnimatePipeline"}))
    with pytest.raises(
        UnknownModel, match=r"holds a WanAnimatePipeline.* VideoPipeline, TatsPipeline, WanPipeline.*Allegro"
    ) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_damaged_part_says_so_in_one_line(tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "broken")
    (tmp_path / "broken" / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnknownModel, match="does not load as a pipeline") as caught:
        load(tmp_path / "broken")
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_downloaded_without_code_or_pickles(monkeypatch, tiny_folder):
    import fnmatch

    import huggingface_hub

    asked = {}

    def snapshot_download(name, allow_patterns, **_):
        asked[name] = allow_patterns
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load("someone/model").config.fps == 8.0
    patterns = asked["someone/model"]
    files = [str(path.relative_to(tiny_folder)) for path in tiny_folder.rglob("*") if path.is_file()]
    taken = {name for name in files if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert taken == set(files) - {"pipeline.py"}
    for name in ("pipeline.py", "transformer/pytorch_model.bin", "model.ckpt", "transformer/code.py"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def test_dtype_and_device_options(tiny_folder):
    assert load(tiny_folder).transformer.dtype == torch.float32
    pipe = load(tiny_folder, dtype="bfloat16")
    assert {pipe.transformer.dtype, pipe.tokenizer.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    with pytest.raises(BadInput, match=r"'bfloat61'.*'bfloat16'"):
        load(tiny_folder, dtype="bfloat61")
    with pytest.raises(BadInput, match="device 'abacus'"):
        load(tiny_folder, device="abacus")


def test_a_tokenizer_loads_alone(tiny_folder, tmp_path):
    pipe = load(tiny_folder)
    for folder in (tiny_folder, tiny_folder / "tokenizer"):
        assert load_tokenizer(folder).content_hash() == pipe.tokenizer.content_hash()
    with pytest.raises(UnknownModel):
        load_tokenizer(tmp_path)
