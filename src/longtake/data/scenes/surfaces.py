"""Paint: textures of solids, floors and skies, as functions of position and direction."""

import math

import torch
from torch import Tensor

from longtake.data.scenes.world import BACKDROPS, TEXTURES, Background

TILE = 1.3
"""Side of a floor tile in world units."""
HAZE = 12.0
"""Distance over which the floor fades to its mean colour, in world units."""


def textured(texture: Tensor, repeats: Tensor, tone: Tensor, point: Tensor) -> Tensor:
    """Brightness factor (N,) in [tone, 1] of textures (N,) ids at canonical surface points (N, 3)."""
    x, y, z = point.unbind(-1)
    angle = torch.atan2(y, x)
    banded = torch.sin(repeats * angle) > 0
    striped = torch.sin(math.pi * (repeats + 1) * z) > 0
    cells = (point * repeats[:, None] + 0.01).floor().long().sum(-1)
    checkered = cells % 2 == 0
    lattice = point * (repeats[:, None] + 0.5)
    spotted = (lattice - lattice.round()).norm(dim=-1) < 0.33
    dark = torch.zeros_like(banded)
    for name, pattern in (("banded", banded), ("striped", striped), ("checkered", checkered), ("spotted", spotted)):
        dark = torch.where(texture == TEXTURES.index(name), pattern, dark)
    return torch.where(dark, tone, torch.ones_like(tone))


def floor_colour(background: Background, point: Tensor, direction: Tensor, distance: Tensor) -> Tensor:
    """Unlit colour (..., 3) in [0, 1] of the floor at world points (..., 3) seen along unit directions (..., 3)."""
    if background.kind == "checker":
        rows = (point[..., 0] / TILE).floor() + (point[..., 1] / TILE).floor()
        light = torch.tensor([0.86, 0.86, 0.84])
        dark = torch.tensor([0.30, 0.31, 0.34])
        tiles = torch.where((rows.remainder(2) < 0.5)[..., None], light.to(point), dark.to(point))
        fade = torch.exp(-((distance / HAZE) ** 2))[..., None]
        return fade * tiles + (1 - fade) * ((light + dark) / 2).to(point)
    if background.kind == "sky":
        return torch.tensor([0.40, 0.47, 0.28]).to(point).expand_as(point)
    return backdrop_colour(background, direction)


def backdrop_colour(background: Background, direction: Tensor, seconds: Tensor | None = None) -> Tensor:
    """Colour (..., 3) in [0, 1] at infinity along unit directions (..., 3); clouds drift with `seconds` (...)."""
    if background.kind == "plain":
        return torch.tensor(BACKDROPS[background.colour]).to(direction).expand_as(direction)
    if background.kind == "gradient":
        ramp = (0.5 + 1.55 * (direction[..., 2] + 0.16)).clamp(0, 1)[..., None]
        base = torch.tensor(BACKDROPS[background.colour]).to(direction)
        return (0.45 * base) * (1 - ramp) + (0.45 * base + 0.55) * ramp
    if background.kind == "checker":
        return torch.tensor([0.72, 0.78, 0.86]).to(direction).expand_as(direction)
    return _sky(background, direction, seconds)


def _sky(background: Background, direction: Tensor, seconds: Tensor | None) -> Tensor:
    rise = direction[..., 2].clamp_min(0.02)
    blue = torch.tensor([0.36, 0.60, 0.90]).to(direction)
    pale = torch.tensor([0.70, 0.82, 0.95]).to(direction)
    height = (direction[..., 2] * 3).clamp(0, 1)[..., None]
    base = blue * height + pale * (1 - height)
    drift = 0.0 if seconds is None else 0.5 * seconds
    # A flat layer of clouds, flattened near the horizon; a sum of seeded plane waves stands for its density.
    x, y = direction[..., 0] / (rise + 0.12) + drift, direction[..., 1] / (rise + 0.12)
    generator = torch.Generator().manual_seed(background.seed)
    density = torch.zeros_like(x)
    for octave in range(6):
        angle, phase = (2 * math.pi * torch.rand(2, generator=generator)).tolist()
        frequency = 1.1 * 1.45**octave
        wave = torch.sin(frequency * (math.cos(angle) * x + math.sin(angle) * y) + phase)
        density = density + wave / 1.3**octave
    cover = torch.sigmoid(2.2 * (density - 0.3))[..., None]
    cover = cover * (direction[..., 2] * 8).clamp(0, 1)[..., None]
    return base * (1 - cover) + 0.97 * cover
