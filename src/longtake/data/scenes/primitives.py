"""Rays against canonical primitives, in closed form, on flat lists of rays.

All functions take origins and directions (N, 3) in the primitive's own coordinates (directions of any length: the ray
parameter is shared with world space, where directions are unit vectors) and return the nearest positive parameter
(N,), infinite where the ray misses. Normals are those of the canonical shape at a surface point.
"""

import torch
from torch import Tensor

from longtake.data.scenes.bodies import BOX, CAPSULE, CONE, CYLINDER, SPHERE

NEAR = 1e-4


def intersect(kind: Tensor, ratio: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """Nearest hit of each ray with its own primitive: `kind` (N,) ids of `bodies`, `ratio` (N,) of capsules."""
    hit = torch.full_like(ratio, torch.inf)
    for name, function in _INTERSECTIONS.items():
        chosen = (kind == name).nonzero().squeeze(1)
        if len(chosen):
            hit[chosen] = function(origin[chosen], direction[chosen], ratio[chosen])
    return hit


def normal(kind: Tensor, ratio: Tensor, point: Tensor) -> Tensor:
    """Outward unit normals (N, 3) of the canonical primitives at surface points (N, 3)."""
    x, y, z = point.unbind(-1)
    flat = torch.stack([x, y, torch.zeros_like(z)], -1)
    up = torch.stack([torch.zeros_like(z), torch.zeros_like(z), z.sign()], -1)
    largest = point.abs().amax(-1, keepdim=True)
    cube = point.sign() * (point.abs() >= largest - 1e-6)
    tube = torch.where((z.abs() > 1 - 1e-3)[:, None], up, flat)
    slope = torch.stack([x, y, 0.5 * flat.norm(dim=-1)], -1)  # the lateral surface rises 2 over a radius of 1
    tip = torch.where((z < -1 + 1e-3)[:, None], up, slope)
    pill = point - torch.stack(
        [torch.zeros_like(z), torch.zeros_like(z), torch.maximum(torch.minimum(z, ratio), -ratio)], -1
    )
    options = {SPHERE: point, BOX: cube, CYLINDER: tube, CONE: tip, CAPSULE: pill}
    result = torch.empty_like(point)
    for name, value in options.items():
        result = torch.where((kind == name)[:, None], value, result)
    return result / result.norm(dim=-1, keepdim=True).clamp_min(1e-8)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both roots of a t^2 + 2 b t + c = 0, infinite where there are none."""
    inner = b * b - a * c
    root = inner.clamp_min(0).sqrt()
    safe = torch.where(a.abs() < 1e-9, torch.full_like(a, 1e-9), a)
    low, high = (-b - root) / safe, (-b + root) / safe
    miss = inner < 0
    infinite = torch.full_like(a, torch.inf)
    return (
        torch.where(miss, infinite, torch.minimum(low, high)),
        torch.where(miss, infinite, torch.maximum(low, high)),
    )


def _first(*candidates: Tensor) -> Tensor:
    ahead = [torch.where(t > NEAR, t, torch.full_like(t, torch.inf)) for t in candidates]
    return torch.stack(ahead).amin(0)


def _sphere(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    return _first(*_roots((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1))


def _box(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    inverse = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    a, b = (-1 - o) * inverse, (1 - o) * inverse
    enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
    infinite = torch.full_like(enter, torch.inf)
    enter, leave = torch.where(enter > leave, infinite, enter), torch.where(enter > leave, infinite, leave)
    return _first(enter, leave)


def _cap(o: Tensor, d: Tensor, level: float) -> Tensor:
    """Parameter at which the ray crosses the unit disc at height `level`."""
    t = (level - o[:, 2]) / torch.where(d[:, 2].abs() < 1e-9, torch.full_like(d[:, 2], 1e-9), d[:, 2])
    x, y = o[:, 0] + t * d[:, 0], o[:, 1] + t * d[:, 1]
    return torch.where(x * x + y * y <= 1, t, torch.full_like(t, torch.inf))


def _within(o: Tensor, d: Tensor, t: Tensor, limit: Tensor | float) -> Tensor:
    z = o[:, 2] + t * d[:, 2]
    return torch.where(z.abs() <= limit, t, torch.full_like(t, torch.inf))


def _tube(o: Tensor, d: Tensor, limit: Tensor | float) -> tuple[Tensor, Tensor]:
    ox, dx = o[:, :2], d[:, :2]
    low, high = _roots((dx * dx).sum(-1), (ox * dx).sum(-1), (ox * ox).sum(-1) - 1)
    return _within(o, d, low, limit), _within(o, d, high, limit)


def _cylinder(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    return _first(*_tube(o, d, 1.0), _cap(o, d, 1.0), _cap(o, d, -1.0))


def _cone(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    # x^2 + y^2 = ((1 - z) / 2)^2
    h, k = (1 - o[:, 2]) / 2, -d[:, 2] / 2
    a = (d[:, :2] ** 2).sum(-1) - k * k
    b = (o[:, :2] * d[:, :2]).sum(-1) - h * k
    c = (o[:, :2] ** 2).sum(-1) - h * h
    low, high = _roots(a, b, c)
    return _first(_within(o, d, low, 1.0), _within(o, d, high, 1.0), _cap(o, d, -1.0))


def _capsule(o: Tensor, d: Tensor, ratio: Tensor) -> Tensor:
    hits = list(_tube(o, d, ratio))
    for sign in (1.0, -1.0):
        shifted = o - torch.stack([torch.zeros_like(ratio), torch.zeros_like(ratio), sign * ratio], -1)
        hits += _roots((d * d).sum(-1), (shifted * d).sum(-1), (shifted * shifted).sum(-1) - 1)
    return _first(*hits)


_INTERSECTIONS = {SPHERE: _sphere, BOX: _box, CYLINDER: _cylinder, CONE: _cone, CAPSULE: _capsule}
