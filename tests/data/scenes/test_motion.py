import math
from dataclasses import replace

import pytest
import torch

from longtake.data.scenes import SceneOptions, sample_scene
from longtake.data.scenes.motion import GRAVITY, animate, reach, rest_height

DT = 0.005


def lone(shape, motion, seed=0, relation="alone"):
    options = SceneOptions(shapes=(shape,), motions=(motion,), relations=(relation,), cameras=("static",), split="all")
    return sample_scene(seed, options)


def velocities(pose):
    """Central differences (T-2, 3) of position, and angular velocity (T-2, 3)."""
    speed = (pose.position[2:] - pose.position[:-2]) / (2 * DT)
    turn = pose.rotation[2:] @ pose.rotation[:-2].transpose(1, 2)
    skew = (turn - turn.transpose(1, 2)) / 2 / (2 * DT)
    return speed, torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1)


@pytest.mark.parametrize("shape", ["ball", "cylinder", "capsule"])
@pytest.mark.parametrize("motion", ["roll-left", "roll-right"])
def test_a_rolling_body_does_not_slip(shape, motion):
    scene = lone(shape, motion, seed=3)
    (pose,) = animate(scene, torch.arange(0, 2, DT))
    speed, spin = velocities(pose)
    radius = rest_height(scene.objects[0].identity, lying=True)
    contact = torch.tensor([0.0, 0.0, -radius]).expand_as(spin)
    slip = speed + torch.linalg.cross(spin, contact)
    assert speed.norm(dim=-1).min() > 1.0
    assert slip.norm(dim=-1).max() < 0.01
    assert (speed[:, 0] > 0).all() == (motion == "roll-right")
    assert torch.allclose(pose.position[:, 2], torch.tensor(radius))


@pytest.mark.parametrize("motion", ["bounce", "fall"])
def test_flight_is_ballistic(motion):
    scene = lone("ball", motion, seed=1)
    times = torch.arange(0, 2, 0.02, dtype=torch.double)
    (pose,) = animate(scene, times)
    height = pose.position[:, 2] - rest_height(scene.objects[0].identity)
    second = (height[2:] - 2 * height[1:-1] + height[:-2]) / 0.02**2
    wanted = -GRAVITY * scene.objects[0].motion.pace ** 2
    free = (second - wanted).abs() < 1e-6 * GRAVITY
    landed = height[1:-1] < 0.25  # bounces and rest happen near the floor only
    assert (free | landed).all() and free.sum() > 20
    assert height.min() >= 0


def test_a_bounce_comes_back_to_its_height_and_a_fall_comes_to_rest():
    bounce, fall = lone("cube", "bounce", seed=2), lone("cube", "fall", seed=2)
    times = torch.arange(0, 8, 0.002)
    for scene in (bounce, fall):
        (pose,) = animate(scene, times)
        height = pose.position[:, 2] - rest_height(scene.objects[0].identity)
        assert height.max() == pytest.approx(scene.objects[0].motion.amount, rel=1e-3)
        late = height[times > 6]
        assert late.max() == pytest.approx(scene.objects[0].motion.amount if scene is bounce else 0.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_collision_hands_the_momentum_over_at_contact(seed):
    scene = lone("ball", "slide-left", seed=seed, relation="collide")
    times = torch.arange(0, 2, DT)
    first, second = animate(scene, times)
    a, b = first.position[:, 0], second.position[:, 0]
    gap = (a - b).abs()
    touch = sum(reach(thing.identity) for thing in scene.objects)
    assert touch - 1e-4 < gap.min() < touch + 0.02  # they meet between two frames and do not enter one another
    va, vb = a.diff() / DT, b.diff() / DT
    before, after = va.abs() > 1e-3, vb.abs() > 1e-3
    assert before.any() and after.any()
    moving = int(before.nonzero().max())
    assert (vb[: moving - 1] == 0).all() and (va[moving + 1 :].abs() < 1e-3).all()
    assert vb[-1] == pytest.approx(0.8 * float(va[0]), rel=1e-3)  # equal masses; the floor then takes a fifth


def test_orbit_spin_and_growth_do_what_their_numbers_say():
    times = torch.arange(0, 2, DT)
    orbit = lone("cube", "orbit", seed=4)
    (pose,) = animate(orbit, times)
    motion = orbit.objects[0].motion
    x, y = (pose.position[:, i] - motion.place[i] for i in (0, 1))
    assert torch.allclose((x / motion.amount) ** 2 + (y / (0.9 * motion.amount)) ** 2, torch.ones(1), atol=1e-4)
    spin = lone("cube", "spin", seed=4)
    (pose,) = animate(spin, times)
    _, turning = velocities(pose)
    motion = spin.objects[0].motion
    assert torch.allclose(turning[:, 2], torch.tensor(math.pi * motion.amount * motion.pace), rtol=1e-2)
    grow = lone("cube", "grow", seed=4)
    (pose,) = animate(replace(grow, objects=(grow.objects[0],)), times)
    motion = grow.objects[0].motion
    assert float(pose.scale[-1] / pose.scale[0]) == pytest.approx(motion.amount ** min(1, motion.pace), rel=2e-2)
    assert torch.allclose(pose.position[:, 2], pose.scale * rest_height(grow.objects[0].identity))  # stays on the floor


def test_another_frame_rate_shows_the_same_path():
    for seed in range(8):
        scene = sample_scene(seed)
        slow, fast = animate(scene, torch.arange(9) / 4), animate(scene, torch.arange(33) / 16)
        for a, b in zip(slow, fast, strict=True):
            assert torch.allclose(a.position, b.position[::4], atol=1e-5)
            assert torch.allclose(a.rotation, b.rotation[::4], atol=1e-5)
