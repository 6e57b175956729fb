"""Records: read back whole, refused when wrong, written with their clip or not at all."""

import errno
import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from longtake.errors import BadInput, BadOutput, BadRecipe
from longtake.pipelines.records import (
    Record,
    Settings,
    Source,
    check_output,
    check_sources,
    command_line,
    file_hash,
    read_record,
    weights_hash,
    write_output,
)
from longtake.video import Clip, read_clip

RECORD = Record(
    settings=Settings('say "hi" & go', seed=4, guidance=2.5, image=Source("a b.png", "0" * 64)),
    model="starter",
    weights="f" * 64,
    scheduler={"class": "FlowMatchEulerDiscreteScheduler", "config": {"shift": 3.0}},
    fps=8.0,
    dtype="float32",
    device="cpu",
    threads=2,
    warnings=("one", "two"),
    versions={"torch": "2.13.0"},
)
CLIP = Clip(torch.zeros(1, 3, 5, 16, 16), 8.0)


def test_a_record_reads_back_as_it_was(tmp_path):
    path = tmp_path / "clip.json"
    path.write_text(RECORD.to_json())
    assert read_record(path) == RECORD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(sheduler={}), "unknown key 'sheduler'. Did you mean 'scheduler'"),
        (lambda r: r["settings"].update(prompts="x"), "settings: unknown key 'prompts'. Did you mean 'prompt'"),
        (lambda r: r["settings"].update(frames="17"), "frames is '17', expected int"),
        (lambda r: r["settings"].update(image="x.png"), "image is 'x.png', expected an object"),
        (lambda r: r.pop("weights"), "'weights' is missing"),
        (lambda r: r.update(format=99), "format 99"),
    ],
)
def test_a_wrong_record_is_refused_by_name(tmp_path, change, words):
    content = json.loads(RECORD.to_json())
    change(content)
    (tmp_path / "clip.json").write_text(json.dumps(content))
    with pytest.raises(BadRecipe, match=words):
        read_record(tmp_path / "clip.json")


@pytest.mark.parametrize("content", [None, b"", b"[1]", b"\xff\xfe\x00", b"{"])
def test_what_is_no_record_is_named(tmp_path, content):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRecipe, match=r"other\.json") as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_the_command_is_ready_for_a_shell():
    import shlex

    words = shlex.split(command_line(RECORD.settings, "starter", "out dir/clip.mp4"))
    assert words[:3] == ["longtake", "generate", 'say "hi" & go']
    assert words[words.index("--out") + 1] == "out dir/clip.mp4"
    assert words[words.index("--image") + 1] == "a b.png"
    assert words[words.index("--guidance") + 1] == "2.5"


def test_changed_and_missing_sources_are_refused(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"one")
    settings = Settings("x", image=Source(str(picture), file_hash(picture)))
    check_sources(settings)
    picture.write_bytes(b"two")
    with pytest.raises(BadInput, match=r"a\.png.*has changed"):
        check_sources(settings)
    picture.unlink()
    with pytest.raises(BadInput, match="not there any more"):
        check_sources(settings)
    with pytest.raises(BadInput, match="as a tensor"):
        check_sources(replace(settings, image=Source(None, "0" * 64)))


def test_weights_hash_in_a_narrow_dtype_does_not_depend_on_the_dtype():
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 4).bfloat16()
    narrow = weights_hash({"a": network}, dtype=torch.bfloat16)
    assert weights_hash({"a": network.float()}, dtype=torch.bfloat16) == narrow
    exact = weights_hash({"a": network})
    with torch.no_grad():
        network.weight[0, 0] *= 1.0001
    assert weights_hash({"a": network}) != exact
    assert weights_hash({"b": network}) != weights_hash({"a": network})


# ------------------------------------------------------------------------------------------------------------- writing


def test_clip_and_record_are_written_together(tmp_path):
    write_output(CLIP, RECORD, tmp_path / "clip.mp4")
    assert sorted(os.listdir(tmp_path)) == ["clip.json", "clip.mp4"]
    assert read_clip(tmp_path / "clip.mp4").frames == 5 and read_record(tmp_path / "clip.json") == RECORD


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, failing):
    """The disk is full while the clip (1) or the record (2) is written."""
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("longtake.video.writing.os.fsync", full)
    with pytest.raises(BadOutput, match="No space left"):
        write_output(CLIP, RECORD, tmp_path / "clip.mp4")
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_known_before_any_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 1000))
    with pytest.raises(BadOutput, match="1000 bytes left"):
        check_output(tmp_path / "clip.mp4", frames=17, height=64, width=64)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1e9, 0, 1e9))
    check_output(tmp_path / "clip.mp4", frames=17, height=64, width=64)


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing/clip.mp4", "missing"), ("clip.json", "suffix"), ("clip", "suffix"), ("taken.mp4", "folder")],
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path, name, words):
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(BadOutput, match=words):
        check_output(tmp_path / name, frames=17, height=64, width=64)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_record_that_cannot_be_written_is_refused_too(tmp_path):
    (tmp_path / "clip.json").mkdir()
    with pytest.raises(BadOutput, match=r"clip\.json"):
        check_output(tmp_path / "clip.mp4", frames=17, height=64, width=64)
