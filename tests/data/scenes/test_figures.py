import pytest
import torch

from longtake.data.scenes import SceneOptions, sample_scene
from longtake.data.scenes.bodies import build_bodies
from longtake.data.scenes.figures import FIGURE_PARTS, JOINTS
from longtake.data.scenes.motion import animate
from longtake.data.scenes.parts import CAPSULE
from longtake.data.scenes.world import FIGURE_MOTIONS

TIMES = torch.arange(0, 2, 0.02)


def figure(motion, seed=0):
    options = SceneOptions(
        shapes=("figure",), motions=(motion,), relations=("alone",), cameras=("static",), split="all"
    )
    scene = sample_scene(seed, options)
    assert scene.objects[0].motion.kind == motion
    return scene, build_bodies(scene, TIMES)[0]


def joint(body, name):
    return body.joints[:, JOINTS.index(name)]


def lowest(part):
    """Height (T,) of a part's lowest point."""
    half = part.ratio * part.size[:, 0] if part.kind == CAPSULE else 0.0
    return part.position[:, 2] - half * part.rotation[:, 2, 2].abs() - part.size[:, 0]


@pytest.mark.parametrize("motion", FIGURE_MOTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_figure_stands_on_the_floor(motion, seed):
    _, body = figure(motion, seed)
    assert len(body.parts) == len(FIGURE_PARTS)
    height = torch.stack([lowest(part) for part in body.parts]).amin(0)
    assert height.min() > -1e-3
    assert height.min() < 0.1 if motion == "jump" else height.max() < 0.02


@pytest.mark.parametrize("motion", FIGURE_MOTIONS)
def test_limbs_keep_their_length_and_hang_together(motion):
    _, body = figure(motion)
    for side in ("left", "right"):
        for a, b in (("shoulder", "elbow"), ("elbow", "hand"), ("hip", "knee"), ("knee", "foot")):
            length = (joint(body, f"{a}-{side}") - joint(body, f"{b}-{side}")).norm(dim=-1)
            assert length.max() - length.min() < 1e-4
    parts = dict(zip(FIGURE_PARTS, body.parts, strict=True))
    for name, ends in {"thigh-left": ("hip-left", "knee-left"), "forearm-right": ("elbow-right", "hand-right")}.items():
        part = parts[name]
        tip = part.rotation[:, :, 2] * (part.ratio * part.size[:, :1])
        assert torch.allclose(part.position - tip, joint(body, ends[0]), atol=2e-3)
        assert torch.allclose(part.position + tip, joint(body, ends[1]), atol=2e-3)


def test_left_is_left_for_someone_who_faces_the_viewer():
    _, body = figure("still")
    toe = build_bodies(figure("still")[0], TIMES)[0].parts[FIGURE_PARTS.index("shoe-left")].position
    assert (toe - joint(body, "foot-left"))[0, 1] < 0  # faces the viewer, who is at negative y
    assert joint(body, "shoulder-left")[0, 0] > joint(body, "shoulder-right")[0, 0]
    _, waver = figure("wave")
    assert (joint(waver, "hand-right")[:, 2] > joint(waver, "head")[:, 2] - 0.4).all()
    assert (joint(waver, "hand-left")[:, 2] < joint(waver, "pelvis")[:, 2] + 0.4).all()


@pytest.mark.parametrize("motion", ["walk-left", "walk-right"])
@pytest.mark.parametrize("relation", ["alone", "collide"])
def test_a_walker_faces_where_it_goes_and_its_standing_foot_stays(motion, relation):
    options = SceneOptions(
        shapes=("figure",), motions=(motion,), relations=(relation,), cameras=("static",), split="all"
    )
    scenes = (sample_scene(seed, options) for seed in range(20))
    scene = next(scene for scene in scenes if scene.objects[0].motion.kind == motion)
    body, pose = build_bodies(scene, TIMES)[0], animate(scene, TIMES)[0]
    moving = slice(0, 20)  # before any collision
    step = pose.position[moving].diff(dim=0)
    side = FIGURE_PARTS.index("shoe-left")
    forward = (body.parts[side].position - joint(body, "foot-left"))[moving]
    assert (step[:, 0] * forward[1:, 0] > 0).all()
    assert (step[0, 0] > 0) == (motion == "walk-right")
    feet = torch.stack([joint(body, "foot-left"), joint(body, "foot-right")])[:, moving]
    standing = feet[:, :-1, 2].argmin(0)
    slip = feet.diff(dim=1)[standing, torch.arange(len(standing)), 0].abs()
    assert slip.mean() < 0.15 * step[:, 0].abs().mean()


def test_a_walker_that_was_stopped_stands_still():
    options = SceneOptions(shapes=("figure",), relations=("collide",), split="all")
    scene = sample_scene(0, options)
    body = build_bodies(scene, TIMES)[0]
    assert (body.joints[-10:] - body.joints[-1:]).abs().max() < 1e-5
    assert (body.joints[:10] - body.joints[:1]).abs().max() > 0.05


def test_a_jump_lifts_the_feet_and_the_arms():
    scene, body = figure("jump")
    feet = joint(body, "foot-left")[:, 2]
    assert feet.max() - feet.min() > 0.9 * scene.objects[0].motion.amount
    top = feet.argmax()
    assert joint(body, "hand-left")[top, 2] > joint(body, "elbow-left")[top, 2]
