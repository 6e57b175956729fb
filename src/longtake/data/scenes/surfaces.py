"""Paint: textures of solids, floors and skies, as functions of position and direction."""

import math

import torch
from torch import Tensor

from longtake.data.scenes.world import BACKDROPS, TEXTURES, Background

TILE = 1.3
"""Side of a floor tile in world units."""
HAZE = 12.0
"""Distance over which the floor fades to its mean colour, in world units."""
LIGHT_TILE, DARK_TILE = (0.86, 0.86, 0.84), (0.30, 0.31, 0.34)
GRASS = (0.40, 0.47, 0.28)
HORIZON = (0.72, 0.78, 0.86)
BLUE, PALE = (0.36, 0.60, 0.90), (0.70, 0.82, 0.95)
CLOUD = 0.97


def textured(texture: Tensor, repeats: Tensor, tone: Tensor, point: Tensor) -> Tensor:
    """Brightness factor (N,) in [tone, 1] of textures (N,) ids at canonical surface points (3, N)."""
    patterns = {
        "banded": lambda p, n: torch.sin(n * torch.atan2(p[1], p[0])) > 0,
        "striped": lambda p, n: torch.sin(math.pi * (n + 1) * p[2]) > 0,
        "checkered": lambda p, n: (p * n + 0.01).floor().sum(0).remainder(2) < 0.5,
        "spotted": lambda p, n: (p * n - (p * n).round()).norm(dim=0) < 0.34,
    }
    factor = torch.ones_like(tone)
    for name, pattern in patterns.items():
        chosen = (texture == TEXTURES.index(name)).nonzero().squeeze(1)
        if len(chosen):
            dark = pattern(point[:, chosen], repeats[chosen])
            factor[chosen] = torch.where(dark, tone[chosen], 1.0)
    return factor


def floor_colour(background: Background, point: Tensor, direction: Tensor, distance: Tensor) -> Tensor:
    """Unlit colour (3, N) in [0, 1] of the floor at world points (3, N) seen along unit directions (3, N)."""
    if background.kind == "checker":
        rows = (point[0] / TILE).floor() + (point[1] / TILE).floor()
        light, dark = _column(LIGHT_TILE, point), _column(DARK_TILE, point)
        tiles = torch.where(rows.remainder(2) < 0.5, light, dark)
        fade = torch.exp(-((distance / HAZE) ** 2))
        return fade * tiles + (1 - fade) * ((light + dark) / 2)
    if background.kind == "sky":
        return _column(GRASS, point).expand_as(point)
    return backdrop_colour(background, direction)


def backdrop_colour(background: Background, direction: Tensor, seconds: Tensor | None = None) -> Tensor:
    """Colour (3, N) in [0, 1] at infinity along unit directions (3, N); clouds drift with `seconds` (N,)."""
    if background.kind == "plain":
        return _column(BACKDROPS[background.colour], direction).expand_as(direction)
    if background.kind == "gradient":
        ramp = (0.5 + 1.55 * (direction[2] + 0.16)).clamp(0, 1)
        base = _column(BACKDROPS[background.colour], direction)
        return (0.45 * base) * (1 - ramp) + (0.45 * base + 0.55) * ramp
    if background.kind == "checker":
        return _column(HORIZON, direction).expand_as(direction)
    return _sky(background, direction, seconds)


def _sky(background: Background, direction: Tensor, seconds: Tensor | None) -> Tensor:
    rise = direction[2].clamp_min(0.02)
    height = (direction[2] * 3).clamp(0, 1)
    base = _column(BLUE, direction) * height + _column(PALE, direction) * (1 - height)
    drift = 0.0 if seconds is None else 0.5 * seconds
    # A flat layer of clouds, flattened near the horizon; a sum of seeded plane waves stands for its density.
    x, y = direction[0] / (rise + 0.12) + drift, direction[1] / (rise + 0.12)
    generator = torch.Generator().manual_seed(background.seed)
    density = torch.zeros_like(x)
    for octave in range(6):
        angle, phase = (2 * math.pi * torch.rand(2, generator=generator)).tolist()
        frequency = 1.1 * 1.45**octave
        wave = torch.sin(frequency * (math.cos(angle) * x + math.sin(angle) * y) + phase)
        density = density + wave / 1.3**octave
    cover = torch.sigmoid(2.2 * (density - 0.3))
    cover = cover * (direction[2] * 8).clamp(0, 1)
    return base * (1 - cover) + CLOUD * cover


def _column(colour: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(colour).to(like)[:, None]
