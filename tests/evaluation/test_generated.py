"""Clips that a model makes while it is measured: made once, kept without loss, bound to all that decides them."""

from pathlib import Path

import pytest
import torch

import longtake
from longtake.errors import BadData, BadSize
from longtake.evaluation.cuts import cut
from longtake.evaluation.generated import GeneratedSource, Sampling
from longtake.evaluation.observing import Observer, observe
from longtake.evaluation.prompts import Prompt
from longtake.evaluation.protocol import Side
from longtake.video import to_uint8

SMALL = Sampling(frames=5, height=16, width=16, steps=1)
PROMPTS = [Prompt("a red ball", {"objects": []}), Prompt("a blue cube")]


@pytest.fixture(scope="module")
def pipe(tiny_folder: Path):
    return longtake.load(tiny_folder)


def test_a_clip_is_that_of_its_prompt_and_seed_and_is_made_once(pipe, tmp_path: Path) -> None:
    made = []
    source = GeneratedSource(pipe, PROMPTS, tmp_path, SMALL, on_clip=made.append)
    assert [video.prompt for video in source.videos] == ["a red ball", "a blue cube"] and list(tmp_path.iterdir()) == []
    assert source.videos[0].attributes == {"objects": []} and source.videos[0].fps == 8.0
    clip = pipe("a blue cube", frames=5, height=16, width=16, steps=1, seed=1).clip
    assert torch.equal(source.read(1, range(5)), to_uint8(clip.pixels)[0])
    assert torch.equal(source.read(1, [4, 0]), to_uint8(clip.pixels)[0, [4, 0]]) and made == [1]
    again = GeneratedSource(pipe, PROMPTS, tmp_path, SMALL, on_clip=made.append)
    assert torch.equal(again.read(1, range(5)), to_uint8(clip.pixels)[0]) and made == [1]
    assert again.path(1).name.startswith("000001-") and again.path(1).exists() and not again.path(0).exists()


def test_whatever_decides_a_clip_is_in_its_hash(pipe, tmp_path: Path) -> None:
    one = GeneratedSource(pipe, PROMPTS, tmp_path, SMALL)
    others = [
        GeneratedSource(pipe, PROMPTS, tmp_path, Sampling(5, 16, 16, 1, seed=9)),
        GeneratedSource(pipe, PROMPTS, tmp_path, Sampling(5, 16, 16, 2)),
        GeneratedSource(pipe, PROMPTS, tmp_path, Sampling(5, 16, 16, 1, guidance=1.0)),
        GeneratedSource(pipe, PROMPTS[::-1], tmp_path, SMALL),
    ]
    digests = {source.digest(0, [0]) for source in (one, *others)}
    assert len(digests) == 5 and one.digest(0, [0]) != one.digest(0, [1])
    weight = next(pipe.transformer.parameters())
    with torch.no_grad():
        weight.add_(1e-3)
        changed = GeneratedSource(pipe, PROMPTS, tmp_path, SMALL)
        weight.sub_(1e-3)
    assert changed.digest(0, [0]) != one.digest(0, [0]) and changed.path(0) != one.path(0)


def test_it_streams_like_any_source(pipe, tmp_path: Path) -> None:
    source = GeneratedSource(pipe, PROMPTS, tmp_path / "clips", SMALL)
    mean = Observer("mean", "1", lambda seen: seen.pixels.double().mean((1, 2, 3, 4))[:, None, None])
    seen = observe(cut(source, Side(frames=5)), [mean], cache=tmp_path / "cache")
    assert seen.rows["mean"].shape == (2, 1, 1) and seen.decoded == 2
    assert len(list((tmp_path / "clips").iterdir())) == 2


def test_what_cannot_be_made(pipe, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no prompts"):
        GeneratedSource(pipe, [], tmp_path)
    with pytest.raises(BadSize, match="5 or 9"):
        GeneratedSource(pipe, PROMPTS, tmp_path, Sampling(frames=6, height=16, width=16))
