import pytest

from longtake.data.scenes import SceneDataset, SceneOptions, sample_scene
from longtake.data.scenes.classes import class_names, class_number, frame_class_names
from longtake.errors import BadInput

ALONE = SceneOptions(relations=("alone",))


def test_every_scene_of_one_object_has_a_class_and_every_class_a_scene():
    names = class_names(ALONE)
    assert len(names) == len(set(names)) == 40  # 4 shapes, 11 motions, of which cubes and cones cannot roll
    assert "a ball rolls left" in names and "a cube slides right" in names and "a cube rolls left" not in names
    scenes = [sample_scene(seed, ALONE) for seed in range(400)]
    numbers = [class_number(scene, ALONE) for scene in scenes]
    assert set(numbers) == set(range(40))
    for scene, number in zip(scenes[:40], numbers, strict=False):
        (thing,) = scene.objects
        assert f" {thing.identity.shape} " in names[number]
        assert thing.motion.kind.partition("-")[2] in names[number]


def test_a_data_set_tells_the_class_of_an_item():
    data = SceneDataset(options=ALONE, count=5, frames=2, height=16, width=16, labels=True)
    assert data.class_names == class_names(ALONE)
    assert [data[i]["label"] for i in range(5)] == [class_number(data.scene(i), ALONE) for i in range(5)]
    with pytest.raises(BadInput, match=r"use relations: \[alone\]"):
        SceneDataset(count=5, labels=True)


def test_single_frames_have_classes_of_colour_and_shape():
    some = SceneOptions(relations=("alone",), shapes=("ball", "cone"), colours=("red", "blue"))
    assert frame_class_names(some) == ("red ball", "blue ball", "red cone", "blue cone")
    with pytest.raises(BadInput, match=r"use relations: \[alone\]"):
        frame_class_names(SceneOptions())
