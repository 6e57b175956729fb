"""Bodies: what an object is made of, part by part, posed for every frame; and the joints of articulated figures.

Every part is one canonical primitive under an affine map: sphere (radius 1), box ([-1, 1]^3), cylinder (radius 1,
|z| <= 1), cone (base radius 1 at z = -1, tip at z = 1) and capsule (radius 1, caps at |z| = `ratio`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.motion import Pose, animate, lies_down
from longtake.data.scenes.world import COLOURS, TEXTURES, Garment, Scene, SceneObject

SPHERE, BOX, CYLINDER, CONE, CAPSULE = range(5)
KIND_OF = {"ball": SPHERE, "cube": BOX, "cylinder": CYLINDER, "cone": CONE, "capsule": CAPSULE}
JOINTS = (
    "pelvis",
    "neck",
    "head",
    "shoulder-left",
    "elbow-left",
    "hand-left",
    "shoulder-right",
    "elbow-right",
    "hand-right",
    "hip-left",
    "knee-left",
    "foot-left",
    "hip-right",
    "knee-right",
    "foot-right",
)
"""Names of a figure's joints, in the order of `Body.joints`; left and right are the figure's own."""
SKIN = (0.87, 0.68, 0.54)


@dataclass(frozen=True)
class Part:
    """One primitive over T frames: `position` (T, 3), `rotation` (T, 3, 3), `size` (T, 3), and its paint."""

    kind: int
    position: Tensor
    rotation: Tensor
    size: Tensor
    ratio: float
    colour: tuple[float, float, float]
    texture: int
    tone: float
    repeats: int


@dataclass(frozen=True)
class Body:
    """An object's parts and, for figures, its joints (T, len(JOINTS), 3) in world units."""

    parts: tuple[Part, ...]
    joints: Tensor | None = None


def build_bodies(scene: Scene, times: Tensor) -> list[Body]:
    """Pose every object of the scene at `times` (T,) seconds."""
    return [
        _figure(thing, pose, times) if thing.identity.shape == "figure" else _solid(thing, pose)
        for thing, pose in zip(scene.objects, animate(scene, times), strict=True)
    ]


def _solid(thing: SceneObject, pose: Pose) -> Body:
    identity, garment = thing.identity, thing.garment
    x, y, z = (identity.size * p for p in identity.proportions)
    ratio = z / x if identity.shape == "capsule" else 0.0
    extent = torch.tensor([x, y, x if identity.shape == "capsule" else z])
    part = Part(
        KIND_OF[identity.shape],
        pose.position,
        pose.rotation,
        pose.scale[:, None] * extent,
        ratio,
        *_paint(garment),
    )
    return Body((part,))


def _paint(garment: Garment) -> tuple[tuple[float, float, float], int, float, int]:
    return COLOURS[garment.colour], TEXTURES.index(garment.texture), garment.tone, garment.repeats


def _figure(thing: SceneObject, pose: Pose, times: Tensor) -> Body:
    """A body of 11 parts on 15 joints; forward kinematics from the motion's closed-form joint angles."""
    identity, garment, motion = thing.identity, thing.garment, thing.motion
    thick, broad, tall = identity.proportions
    unit = identity.size * pose.scale  # (T,)
    stem = motion.kind.partition("-")[0]
    swing, arm = torch.zeros_like(times), torch.zeros_like(times)
    wave = torch.zeros_like(times)
    if stem == "walk":
        swing = 0.6 * torch.sin(2 * math.pi * (1.6 * motion.pace * times + motion.phase))
        arm = 0.7 * swing
    elif stem == "wave":
        wave = 2.4 + 0.45 * torch.sin(2 * math.pi * (1.5 * motion.pace * times + motion.phase))
    elif stem == "jump":
        arm = torch.full_like(times, 0.5)

    # Local frame: x to the figure's left, y forward (towards -y of the world at yaw 0), z up.
    def at(x: float | Tensor, y: float | Tensor, z: float | Tensor) -> Tensor:
        zero = torch.zeros_like(times)
        return torch.stack([zero + x, zero + y, zero + z], -1)

    def limb(root: Tensor, angle: Tensor, bend: Tensor, upper: float, lower: float) -> tuple[Tensor, Tensor]:
        first = root + upper * torch.stack([torch.zeros_like(angle), angle.sin(), -angle.cos()], -1)
        second_angle = angle + bend
        return first, first + lower * torch.stack(
            [torch.zeros_like(angle), second_angle.sin(), -second_angle.cos()], -1
        )

    leg, width = 0.62 * tall, 0.2 * broad
    drop = leg * 2 * (1 - torch.cos(swing.abs())) * 0.6
    pelvis = at(0, 0, 2 * leg + 0.12 - drop)
    neck, head = pelvis + at(0, 0, 0.85), pelvis + at(0, 0, 1.22)
    hips = {"left": pelvis + at(width * 0.7, 0, 0), "right": pelvis + at(-width * 0.7, 0, 0)}
    shoulders = {"left": neck + at(width * 1.6, 0, -0.08), "right": neck + at(-width * 1.6, 0, -0.08)}
    joints: dict[str, Tensor] = {"pelvis": pelvis, "neck": neck, "head": head}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        elbow, hand = limb(shoulders[side], -sign * arm, torch.full_like(arm, 0.25), 0.42, 0.4)
        if side == "right" and stem == "wave":  # the arm is raised sideways and the forearm waves
            raised = shoulders[side] + 0.42 * at(-0.8, 0, 0.6)
            elbow, hand = (
                raised,
                raised + 0.4 * torch.stack([-torch.sin(wave - 2.4), 0 * wave, torch.cos(wave - 2.4)], -1),
            )
        knee, foot = limb(hips[side], sign * swing, -(sign * swing).clamp_min(0.0) * 0.6, leg, leg)
        joints |= {
            f"shoulder-{side}": shoulders[side],
            f"elbow-{side}": elbow,
            f"hand-{side}": hand,
            f"hip-{side}": hips[side],
            f"knee-{side}": knee,
            f"foot-{side}": foot,
        }
    local = torch.stack([joints[name] for name in JOINTS], 1)  # (T, J, 3)
    facing = pose.rotation @ torch.tensor([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    placed = (local * unit[:, None, None]) @ facing.transpose(1, 2) + pose.position[:, None]

    top, texture, tone, repeats = _paint(garment)
    legs = COLOURS[garment.second_colour] if garment.second_colour else tuple(c * garment.tone for c in top)
    plain = TEXTURES.index("plain")
    bones = [
        ("pelvis", "neck", 0.24 * broad, top, texture),
        *[(f"shoulder-{s}", f"elbow-{s}", 0.1, top, texture) for s in ("left", "right")],
        *[(f"elbow-{s}", f"hand-{s}", 0.085, SKIN, plain) for s in ("left", "right")],
        *[(f"hip-{s}", f"knee-{s}", 0.13, legs, plain) for s in ("left", "right")],
        *[(f"knee-{s}", f"foot-{s}", 0.11, legs, plain) for s in ("left", "right")],
    ]
    index = {name: i for i, name in enumerate(JOINTS)}
    parts = [
        _bone(placed[:, index[a]], placed[:, index[b]], radius * thick * unit, (colour, paint, tone, repeats))
        for a, b, radius, colour, paint in bones
    ]
    skull = Part(
        SPHERE, placed[:, index["head"]], facing, (0.24 * unit)[:, None].expand(-1, 3), 0.0, SKIN, plain, 1.0, 1
    )
    return Body((*parts, skull), placed)


def _bone(start: Tensor, end: Tensor, radius: Tensor, paint: tuple) -> Part:
    along = end - start
    length = along.norm(dim=-1, keepdim=True)
    z = along / length
    helper = torch.where(z[:, :1].abs() < 0.9, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    x = torch.linalg.cross(helper, z)
    x = x / x.norm(dim=-1, keepdim=True)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], -1)
    ratio = float((0.5 * length[:, 0] / radius).mean())
    return Part(CAPSULE, 0.5 * (start + end), rotation, radius[:, None].expand(-1, 3), ratio, *paint)


__all__ = ["JOINTS", "Body", "Part", "build_bodies", "lies_down"]
