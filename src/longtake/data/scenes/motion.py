"""Movement: where every object is, how it is turned and how large it is, at any time, in closed form.

Physics are simple and exact: ballistic flight under `GRAVITY` with restitution, rolling without slipping, elastic
collision of equal masses. One vectorised expression per motion, no stepping, so any frame rate gives the same path.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.world import Identity, Motion, Scene, SceneObject

GRAVITY = 13.0
"""Units of length per second squared; brisker than on Earth so that two seconds show several bounces."""
REFERENCE_SECONDS = 2.0
"""Time in which a motion of pace 1 runs its course: 17 frames at 8 fps."""


@dataclass(frozen=True)
class Pose:
    """Body poses over T frames: `position` (T, 3) of the body's centre, `rotation` (T, 3, 3) to world, `scale` (T,)."""

    position: Tensor
    rotation: Tensor
    scale: Tensor


def rest_height(identity: Identity, *, lying: bool = False) -> float:
    """Height of the body's centre above the floor at scale 1, in world units."""
    if identity.shape == "figure":
        return 0.0
    x, _, z = identity.proportions
    if lying:
        return identity.size * x
    if identity.shape == "capsule":
        return identity.size * (x + z)
    return identity.size * z


def reach(identity: Identity, *, lying: bool = False) -> float:
    """Half extent along x, for contact in a collision."""
    return rest_height(identity, lying=True) if lying or identity.shape != "figure" else 0.45 * identity.size


def lies_down(thing: SceneObject) -> bool:
    """Cylinders and capsules roll on their side, with the axis level."""
    return thing.identity.shape in ("cylinder", "capsule") and thing.motion.kind.startswith("roll")


def animate(scene: Scene, times: Tensor) -> list[Pose]:
    """Return the pose of each object at `times` (T,) in seconds from the start of the clip."""
    if scene.relation == "collide":
        return _collision(scene, times)
    return [_alone(thing, times) for thing in scene.objects]


def flight(times: Tensor, drop: float, restitution: float, *, from_floor: bool = False) -> Tensor:
    """Height above rest of a body dropped from `drop` (or thrown up to it), bouncing with `restitution`; (T,) >= 0."""
    height = torch.zeros_like(times)
    start, peak = 0.0, drop
    fall = math.sqrt(2 * drop / GRAVITY)
    speed = GRAVITY * fall
    if not from_floor:
        height = torch.where(times <= fall, drop - 0.5 * GRAVITY * times**2, height)
        start, speed = fall, speed * restitution
        peak = drop * restitution**2
    while speed > 0.3 and peak > 0.01 and start <= float(times.max()):
        end = start + 2 * speed / GRAVITY
        inside = (times > start) & (times <= end)
        local = times - start
        height = torch.where(inside, speed * local - 0.5 * GRAVITY * local**2, height)
        start, speed, peak = end, speed * restitution, peak * restitution**2
    return height.clamp_min(0.0)


def about_z(angle: Tensor) -> Tensor:
    """Rotation matrices (T, 3, 3) about the vertical by `angle` (T,) radians."""
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, o, s, c, o, o, o, i], -1).view(-1, 3, 3)


def about_y(angle: Tensor) -> Tensor:
    """Rotation matrices (T, 3, 3) about the y axis; positive angles roll a body towards +x."""
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, o, s, o, i, o, -s, o, c], -1).view(-1, 3, 3)


def _alone(thing: SceneObject, times: Tensor) -> Pose:
    motion, identity = thing.motion, thing.identity
    stem, _, side = motion.kind.partition("-")
    progress = times * motion.pace / REFERENCE_SECONDS
    zeros, ones = torch.zeros_like(times), torch.ones_like(times)
    x, y, z = zeros + motion.place[0], zeros + motion.place[1], zeros + rest_height(identity, lying=lies_down(thing))
    yaw, scale = zeros + motion.yaw, ones

    if stem in ("slide", "roll", "walk"):
        sign = 1.0 if side == "right" else -1.0
        travelled = sign * motion.amount * (progress - 0.5)
        x, y = x + travelled * math.cos(motion.slant), y + travelled * math.sin(motion.slant)
        if stem == "roll":
            return Pose(torch.stack([x, y, z], -1), _rolled(thing, travelled, motion.slant, motion.yaw), scale)
        if stem == "walk":
            yaw = zeros + sign * math.pi / 2
    elif stem in ("bounce", "jump"):
        period = 2 * math.sqrt(2 * motion.amount / GRAVITY)
        z = z + flight((times * motion.pace + motion.phase * period) % period, motion.amount, 1.0, from_floor=True)
    elif stem == "fall":
        z = z + flight(times * motion.pace, motion.amount, 0.3)
    elif stem == "orbit":
        angle = 2 * math.pi * (progress + motion.phase)
        x, y = x + motion.amount * angle.cos(), y + 0.9 * motion.amount * angle.sin()
    elif stem == "spin":
        yaw = yaw + 2 * math.pi * motion.amount * progress
    elif stem in ("grow", "shrink"):
        scale = _scale(motion, progress)
        z = z * scale
    return Pose(torch.stack([x, y, z], -1), about_z(yaw), scale)


def _scale(motion: Motion, progress: Tensor) -> Tensor:
    """Geometric growth by `amount` over the reference time, centred so that both ends stay in the picture."""
    largest = 1.3
    first = largest / motion.amount if motion.amount >= 1 else largest
    return first * motion.amount ** progress.clamp(0.0, 1.0)


def _rolled(thing: SceneObject, travelled: Tensor, heading: float, yaw: float) -> Tensor:
    radius = rest_height(thing.identity, lying=True)
    roll = about_y(travelled / radius)
    towards = about_z(torch.full_like(travelled, heading))
    if lies_down(thing):  # the body's axis, local z, is laid along the world's y before it rolls
        lay = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]).expand(len(travelled), 3, 3)
        return towards @ roll @ lay
    return towards @ roll @ about_z(torch.full_like(travelled, yaw))


def _collision(scene: Scene, times: Tensor) -> list[Pose]:
    """First object runs along x into the second, stops, and the second takes over its speed (equal masses, elastic)."""
    first, second = scene.objects
    sign = 1.0 if first.motion.kind.endswith("right") else -1.0
    speed = first.motion.amount * first.motion.pace / REFERENCE_SECONDS
    gap = reach(first.identity, lying=lies_down(first)) + reach(second.identity)
    stop = second.motion.place[0] - sign * gap
    start = -sign * 1.85
    travelled = (speed * times).clamp_max(max(abs(stop - start), 0.0))
    pushed = (speed * times - travelled).clamp_min(0.0) * 0.8  # the floor takes a little of it
    x1, x2 = start + sign * travelled, second.motion.place[0] + sign * pushed
    y = torch.zeros_like(times) + second.motion.place[1]
    ones = torch.ones_like(times)
    turn1 = about_z(first.motion.yaw * ones)
    if first.motion.kind.startswith("roll"):
        turn1 = _rolled(first, sign * travelled, 0.0, first.motion.yaw)
    elif first.motion.kind.startswith("walk"):
        turn1 = about_z(sign * math.pi / 2 * ones)
    turn2 = about_z(second.motion.yaw * ones)
    if second.identity.shape == "ball":
        turn2 = _rolled(second, sign * pushed, 0.0, second.motion.yaw)
    z1 = rest_height(first.identity, lying=lies_down(first)) * ones
    return [
        Pose(torch.stack([x1, y, z1], -1), turn1, ones),
        Pose(torch.stack([x2, y, rest_height(second.identity) * ones], -1), turn2, ones),
    ]
