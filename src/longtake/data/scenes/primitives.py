"""Rays against canonical primitives, in closed form, on flat lists of rays.

All functions take origins and directions (3, N) in the primitive's own coordinates (directions of any length: the ray
parameter is shared with world space, where directions are unit vectors) and return the nearest positive parameter
(N,), infinite where the ray misses. Normals are those of the canonical shape at a surface point.
"""

import torch
from torch import Tensor

from longtake.data.scenes.parts import BOX, CAPSULE, CONE, CYLINDER, SPHERE

NEAR = 1e-4


def intersect(kind: Tensor, ratio: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """Nearest hit of each ray with its own primitive: `kind` (N,) ids of `parts`, `ratio` (N,) of capsules."""
    hit = torch.full_like(ratio, torch.inf)
    for name, function in _INTERSECTIONS.items():
        chosen = (kind == name).nonzero().squeeze(1)
        if len(chosen) == len(kind):
            return function(origin, direction, ratio)
        if len(chosen):
            hit[chosen] = function(origin[:, chosen], direction[:, chosen], ratio[chosen])
    return hit


def normal(kind: Tensor, ratio: Tensor, point: Tensor) -> Tensor:
    """Outward unit normals (3, N) of the canonical primitives at surface points (3, N)."""
    x, y, z = point
    nothing = torch.zeros_like(z)
    largest = point.abs().amax(0)
    cube = point.sign() * (point.abs() >= largest - 1e-6)
    flat = torch.stack([x, y, nothing])
    up = torch.stack([nothing, nothing, z.sign()])
    tube = torch.where(z.abs() > 1 - 1e-3, up, flat)
    slope = torch.stack([x, y, 0.5 * (x * x + y * y).sqrt()])  # the lateral surface rises 2 over a radius of 1
    tip = torch.where(z < -1 + 1e-3, up, slope)
    pill = torch.stack([x, y, z - torch.maximum(torch.minimum(z, ratio), -ratio)])
    result = point
    for name, value in {BOX: cube, CYLINDER: tube, CONE: tip, CAPSULE: pill}.items():
        result = torch.where(kind == name, value, result)
    return unit(result)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (3, N) at length 1; zero vectors stay zero."""
    x, y, z = vectors
    return vectors / (x * x + y * y + z * z).sqrt().clamp_min(1e-8)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (N,) of vectors (3, N) or (2, N)."""
    total = a[0] * b[0] + a[1] * b[1]
    return total + a[2] * b[2] if len(a) == 3 else total


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
    nearest = torch.full_like(candidates[0], torch.inf)
    for t in candidates:
        nearest = torch.where((t > NEAR) & (t < nearest), t, nearest)
    return nearest


def _sphere(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    return _first(*_roots(dot(d, d), dot(o, d), dot(o, o) - 1))


def _box(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    inverse = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    a, b = (-1 - o) * inverse, (1 - o) * inverse
    enter, leave = torch.minimum(a, b).amax(0), torch.maximum(a, b).amin(0)
    infinite = torch.full_like(enter, torch.inf)
    enter, leave = torch.where(enter > leave, infinite, enter), torch.where(enter > leave, infinite, leave)
    return _first(enter, leave)


def _cap(o: Tensor, d: Tensor, level: float) -> Tensor:
    """Parameter at which the ray crosses the unit disc at height `level`."""
    t = (level - o[2]) / torch.where(d[2].abs() < 1e-9, torch.full_like(d[2], 1e-9), d[2])
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    return torch.where(x * x + y * y <= 1, t, torch.full_like(t, torch.inf))


def _within(o: Tensor, d: Tensor, t: Tensor, limit: Tensor | float) -> Tensor:
    z = o[2] + t * d[2]
    return torch.where(z.abs() <= limit, t, torch.full_like(t, torch.inf))


def _tube(o: Tensor, d: Tensor, limit: Tensor | float) -> tuple[Tensor, Tensor]:
    low, high = _roots(dot(d[:2], d[:2]), dot(o[:2], d[:2]), dot(o[:2], o[:2]) - 1)
    return _within(o, d, low, limit), _within(o, d, high, limit)


def _cylinder(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    return _first(*_tube(o, d, 1.0), _cap(o, d, 1.0), _cap(o, d, -1.0))


def _cone(o: Tensor, d: Tensor, _: Tensor) -> Tensor:
    # x^2 + y^2 = ((1 - z) / 2)^2
    h, k = (1 - o[2]) / 2, -d[2] / 2
    a = dot(d[:2], d[:2]) - k * k
    b = dot(o[:2], d[:2]) - h * k
    c = dot(o[:2], o[:2]) - h * h
    low, high = _roots(a, b, c)
    return _first(_within(o, d, low, 1.0), _within(o, d, high, 1.0), _cap(o, d, -1.0))


def _capsule(o: Tensor, d: Tensor, ratio: Tensor) -> Tensor:
    hits = list(_tube(o, d, ratio))
    for sign in (1.0, -1.0):
        shifted = torch.stack([o[0], o[1], o[2] - sign * ratio])
        for t in _roots(dot(d, d), dot(shifted, d), dot(shifted, shifted) - 1):
            outer = sign * (o[2] + t * d[2]) >= ratio - 1e-4  # the half of the ball that is not inside the tube
            hits.append(torch.where(outer, t, torch.inf))
    return _first(*hits)


_INTERSECTIONS = {SPHERE: _sphere, BOX: _box, CYLINDER: _cylinder, CONE: _cone, CAPSULE: _capsule}
