"""The class-conditional starter as it ships."""

import pytest

import longtake
from longtake.data.scenes import SceneOptions
from longtake.data.scenes.classes import class_names
from longtake.errors import LongtakeError
from longtake.pipelines.loading import STARTERS

CLASSES = class_names(SceneOptions(relations=("alone",)))


@pytest.fixture(scope="module")
def pipe():
    return longtake.load("starter-latte")


def test_its_classes_are_those_of_scenes_of_one_object(pipe):
    assert tuple(pipe.config.classes) == CLASSES and len(CLASSES) >= 24


def test_it_makes_clips_of_its_classes(pipe):
    made = {name: pipe(name, steps=4, seed=0).clip.pixels for name in (CLASSES[0], CLASSES[-1])}
    assert all(tuple(clip.shape) == (1, 3, 16, 64, 64) and clip.isfinite().all() for clip in made.values())
    assert (made[CLASSES[0]] - made[CLASSES[-1]]).abs().mean() > 0.01
    assert all(0.05 < float(clip.std()) < 1 for clip in made.values()), "a scene, not a plain picture"


def test_what_it_does_not_know_is_named(pipe):
    with pytest.raises(LongtakeError, match="a ball rolls left"):
        pipe("a ball rols left")


def test_it_is_small():
    size = sum(path.stat().st_size for path in (STARTERS / "starter-latte").rglob("*") if path.is_file())
    assert size <= 16 * 2**20
