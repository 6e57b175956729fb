from collections import Counter

import pytest
import torch

from longtake.data.scenes import SceneOptions, canonical, is_held_out, sample_scene
from longtake.data.scenes.motion import animate
from longtake.data.scenes.world import COLOURS, FIGURE_MOTIONS, MOTIONS, SHAPES, TEXTURES
from longtake.errors import BadInput

EVERYTHING = SceneOptions(
    shapes=SHAPES, colours=tuple(COLOURS), textures=TEXTURES, motions=MOTIONS, split="all", moving_camera_share=0.25
)
SOLID = SceneOptions(
    motions=("slide-left", "slide-right", "bounce", "fall", "orbit", "spin"), relations=("alone", "beside")
)


def parts(scene, name):
    return [getattr(thing, name) for thing in scene.objects]


@pytest.mark.parametrize("seed", range(5))
def test_the_same_motion_moves_another_body_alike(seed):
    times = torch.arange(17) / 8
    first, second = (sample_scene(seed, SOLID, motion_seed=7, identity_seed=i) for i in (100, 200))
    assert parts(first, "identity") != parts(second, "identity")
    assert parts(first, "motion") == parts(second, "motion") and first.camera == second.camera
    for a, b in zip(animate(first, times), animate(second, times), strict=True):
        assert torch.allclose(a.position[:, :2], b.position[:, :2], atol=1e-6)
        assert torch.allclose(a.position[:, 2].diff(), b.position[:, 2].diff(), atol=1e-6)  # rest heights differ
        assert torch.allclose(a.rotation, b.rotation, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_each_aspect_has_a_seed_of_its_own(seed):
    base = {"identity_seed": 1, "garment_seed": 2, "motion_seed": 3}
    scene = sample_scene(seed, SOLID, **base)
    for name in ("identity", "garment", "motion"):
        other = [sample_scene(seed, SOLID, **{**base, f"{name}_seed": 10 + i}) for i in range(4)]
        assert any(parts(o, name) != parts(scene, name) for o in other)
        for o in other:
            assert o.background == scene.background and o.camera == scene.camera and o.light == scene.light
            for kept in {"identity", "garment", "motion"} - {name}:
                if kept == "garment":  # house textures follow the shape
                    assert [g.colour for g in parts(o, kept)] == [g.colour for g in parts(scene, kept)]
                else:
                    assert parts(o, kept) == parts(scene, kept)


def test_one_motion_can_be_put_on_the_bodies_of_another_scene():
    a, b = (sample_scene(seed, SceneOptions(relations=("beside",), cameras=("static",))) for seed in (1, 2))
    moved = a.with_motion_of(b)
    assert parts(moved, "motion") == parts(b, "motion") and parts(moved, "identity") == parts(a, "identity")


def test_held_out_combinations_are_a_tenth_and_never_trained_on():
    training = {canonical(sample_scene(seed).attributes) for seed in range(400)}
    held_out = {canonical(sample_scene(seed, SceneOptions(split="held-out")).attributes) for seed in range(400)}
    assert not training & held_out
    share = sum(is_held_out(sample_scene(seed, SceneOptions(split="all"))) for seed in range(1500)) / 1500
    assert 0.07 < share < 0.13


def test_everything_in_the_vocabulary_turns_up_and_fits():
    seen = {"shape": Counter(), "colour": Counter(), "texture": Counter(), "motion": Counter(), "camera": Counter()}
    for seed in range(1500):
        scene = sample_scene(seed, EVERYTHING)
        seen["camera"][scene.camera.kind] += 1
        colours = [thing.garment.colour for thing in scene.objects]
        assert len(set(colours)) == len(colours)
        for thing in scene.attributes["objects"]:
            for name in ("shape", "colour", "texture", "motion"):
                seen[name][thing[name]] += 1
            if thing["shape"] == "figure":
                assert thing["motion"] in (*FIGURE_MOTIONS, "pushed")
            if thing["motion"].startswith("roll"):
                assert thing["shape"] in ("ball", "cylinder", "capsule")
    assert set(seen["shape"]) == set(SHAPES) and set(seen["colour"]) == set(COLOURS)
    assert set(seen["texture"]) == set(TEXTURES) and set(seen["motion"]) == set(MOTIONS) and len(seen["camera"]) == 9


def test_options_name_the_word_they_do_not_know():
    with pytest.raises(BadInput, match=r"'boll'\. Did you mean 'ball'"):
        SceneOptions(shapes=("boll",))
    with pytest.raises(BadInput, match="colours is empty"):
        SceneOptions(colours=())
    with pytest.raises(BadInput, match="split 'test'"):
        SceneOptions(split="test")
