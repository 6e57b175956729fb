"""The parts that bodies are made of: canonical primitives under affine maps, posed for every frame.

Sphere (radius 1), box ([-1, 1]^3), cylinder (radius 1, |z| <= 1), cone (base radius 1 at z = -1, tip at z = 1) and
capsule (radius 1, caps centred at |z| = `ratio`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.world import COLOURS, TEXTURES, Garment

SPHERE, BOX, CYLINDER, CONE, CAPSULE = range(5)
KIND_OF = {"ball": SPHERE, "cube": BOX, "cylinder": CYLINDER, "cone": CONE, "capsule": CAPSULE}


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
    """An object's parts and, for figures (else None), its joints (T, len(JOINTS), 3) in world units."""

    parts: tuple[Part, ...]
    joints: Tensor | None = None


def paint(garment: Garment) -> tuple[tuple[float, float, float], int, float, int]:
    """What a part shows of a garment: colour, texture id, tone and repeats."""
    return COLOURS[garment.colour], TEXTURES.index(garment.texture), garment.tone, garment.repeats


def bone(start: Tensor, end: Tensor, radius: Tensor, paint: tuple) -> Part:
    """A capsule of `radius` (T,) from `start` to `end` (T, 3), whose distance does not change; `paint` as of `paint`."""
    along = end - start
    length = along.norm(dim=-1, keepdim=True)
    z = along / length
    helper = torch.where(z[:, :1].abs() < 0.9, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    x = torch.linalg.cross(helper, z)
    x = x / x.norm(dim=-1, keepdim=True)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], -1)
    ratio = float((0.5 * length[:, 0] / radius).mean())
    return Part(CAPSULE, 0.5 * (start + end), rotation, radius[:, None].expand(-1, 3), ratio, *paint)
