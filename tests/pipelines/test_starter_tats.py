"""The token-by-token starter as it ships."""

import pytest
import torch

import longtake
from longtake.data.scenes import SceneOptions
from longtake.data.scenes.classes import class_names
from longtake.errors import UnknownName
from longtake.pipelines.loading import STARTERS

CLASSES = class_names(SceneOptions(relations=("alone",), motions=("still", "bounce", "orbit", "spin")))


@pytest.fixture(scope="module")
def pipe():
    return longtake.load("starter-tats")


def test_its_classes_are_those_of_scenes_that_last(pipe):
    assert tuple(pipe.config.classes) == CLASSES and len(CLASSES) == 16
    assert (pipe.config.spacing, pipe.config.fps) == (4, 16.0)


def test_it_makes_longer_clips_than_it_has_seen(pipe):
    made = {name: pipe(name, frames=80, seed=0).clip.pixels for name in (CLASSES[0], CLASSES[-1])}
    assert all(tuple(clip.shape) == (1, 3, 80, 64, 64) and clip.isfinite().all() for clip in made.values())
    assert (made[CLASSES[0]] - made[CLASSES[-1]]).abs().mean() > 0.01
    assert all(0.05 < float(clip.std()) < 1 for clip in made.values()), "a scene, not a plain picture"


def test_a_clip_in_a_batch_is_that_of_its_seed(pipe):
    both = pipe(CLASSES[5], frames=32, seed=7, count=2).clip.pixels
    assert torch.allclose(both[1:], pipe(CLASSES[5], frames=32, seed=8).clip.pixels, atol=1e-4)


def test_what_it_does_not_know_is_named(pipe):
    with pytest.raises(UnknownName, match="a ball bounces"):
        pipe("a ball bouncs")


def test_it_is_small():
    size = sum(path.stat().st_size for path in (STARTERS / "starter-tats").rglob("*") if path.is_file())
    assert size <= 12 * 2**20
