"""Rays cast into a stage: what the camera sees, and what stands in the light.

Rays first meet the bounding sphere of each part in one matrix product, a little widened so that rounding loses nothing;
only the pairs that pass (a few per cent) are intersected exactly, as one flat list. So what a ray meets does not depend
on which scenes are rendered together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.primitives import dot, intersect, normal, unit
from longtake.data.scenes.staging import Stage

BIAS = 2e-3
"""Distance in world units by which shadow rays start off their surface."""
SIGHT = 25.0
"""Distance from the camera beyond which no shadow is looked for."""


@dataclass(frozen=True)
class Hits:
    """The N camera rays that met a part, each once.

    `ray` (N,) is the flat index into (B, T, R), `where` (N,) into R alone, `slot` (N,) the part's slot of the stage,
    `distance` (N,) in world units and `point` (3, N) the place on the canonical primitive.
    """

    ray: Tensor
    where: Tensor
    slot: Tensor
    distance: Tensor
    point: Tensor

    def pick(self, chosen: Tensor) -> "Hits":
        """The hits at indices (M,)."""
        return Hits(*(pick(value, chosen) for value in vars(self).values()))


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Entries (..., N) of values (..., M) at indices (N,); several times faster than indexing."""
    return values.index_select(-1, index)


def pick_rays(values: Tensor, frame: Tensor, where: Tensor, frames: int) -> Tensor:
    """Values (C, N) of an image (B, F, C, R), F = T or 1, at flat frames (N,) in (B, T) and rays `where` (N,)."""
    count, stored, channels, rays = values.shape
    if count * stored == 1:
        return pick(values.view(channels, rays), where)
    block = frame if stored == frames else frame // frames
    index, flat = block * (channels * rays) + where, values.flatten()
    return torch.stack([pick(flat, index + c * rays) for c in range(channels)])


def cast(stage: Stage, direction: Tensor) -> Hits:
    """The nearest part along camera rays of unit `direction` (B, F, 3, R), F = T or 1; the floor is not looked at."""
    count, frames, slots = stage.shape
    rays = direction.shape[-1]
    eye = pick(stage.eye.view(-1, 3).T, stage.frame)  # (3, S)
    towards = stage.position - eye
    clearance = dot(towards, towards) - stage.reach**2
    # A sphere at distance c is met where the ray gets closer than its rim: d . c > sqrt(|c|^2 - r^2).
    rim = torch.where(clearance > 0, clearance.clamp_min(0).sqrt() * (1 - 1e-4) - 1e-4, -torch.inf)
    rim = torch.where(stage.reach > 0, rim, torch.inf).view(count, frames * slots, 1)
    slot, where = _pairs(_per_slot(stage, towards, direction) > rim)

    start = _to_part(-towards, stage.rotation.view(9, -1), stage.size)
    o = pick(start, slot)
    d = _into_part(stage, slot, pick_rays(direction, pick(stage.frame, slot), where, frames))
    found = intersect(pick(stage.kind, slot), pick(stage.ratio, slot), o, d)
    met = found.isfinite().nonzero().squeeze(1)
    slot, where, found = pick(slot, met), pick(where, met), pick(found, met)
    point = pick(o, met) + found * pick(d, met)
    hits = Hits(pick(stage.frame, slot) * rays + where, where, slot, found, point)
    return hits if slots == 1 else _nearest(hits, count * frames * rays)


def floor_distance(stage: Stage, direction: Tensor) -> Tensor:
    """Distance (B, F, R) along camera rays (B, F, 3, R) to the floor, infinite above the horizon."""
    down = direction[:, :, 2]
    eye = stage.eye[:, : direction.shape[1], 2:3]
    distance = -eye / torch.where(down < -1e-6, down, torch.full_like(down, -1e-6))
    return torch.where(down < -1e-6, distance, torch.inf)


def above_floor(stage: Stage, hits: Hits, ground: Tensor) -> Hits:
    """Leave out hits behind the floor, whose distance (B, F, R) is `ground`."""
    floor = pick_rays(ground[:, :, None], pick(stage.frame, hits.slot), hits.where, len(stage.times))[0]
    return hits.pick((floor >= hits.distance).nonzero().squeeze(1))


def surface(stage: Stage, hits: Hits) -> Tensor:
    """Outward unit normals (3, N) in world axes where the hits are."""
    slot = hits.slot
    outward = normal(pick(stage.kind, slot), pick(stage.ratio, slot), hits.point) / pick(stage.size, slot)
    return unit(_turn(stage, slot, outward))


def part_to_world(stage: Stage, slot: Tensor, point: Tensor) -> Tensor:
    """World places (3, N) of canonical points (3, N) of slots (N,)."""
    return _turn(stage, slot, point * pick(stage.size, slot)) + pick(stage.position, slot)


def floor_shadows(stage: Stage, place: Tensor, lit: Tensor, hidden: Tensor) -> Tensor:
    """Which floor points lie in shadow.

    Args:
        stage: B scenes over T frames.
        place: world points (B, F, 3, R) on the floor, F = T or 1.
        lit: (B, F, R) false where nothing is asked.
        hidden: (B T R,) true likewise, for each frame.

    Returns:
        Flat indices into (B, T, R), each once.
    """
    rays, slots = place.shape[-1], stage.slots
    place = place.clone()
    place[:, :, 2] += BIAS
    # Seen along the light, a sphere covers a disc: |q - c|^2 < r^2 in two axes across the light.
    axes = _across(stage.light)  # (B, 2, 3)
    flat = axes[:, None] @ place  # (B, F, 2, R)
    square = torch.where(lit, (flat * flat).sum(2), torch.inf)[:, :, None]
    disc = torch.einsum("bij,jbs->ibs", axes, stage.position.view(3, len(axes), -1)).reshape(2, -1)
    wide = torch.where(stage.reach > 0, stage.reach**2 * (1 + 1e-3) + 1e-3, -torch.inf)
    coefficients = torch.stack([-2 * disc[0], -2 * disc[1], torch.ones_like(wide), dot(disc, disc) - wide])
    terms = torch.cat([flat, square, torch.ones_like(square)], 2)
    slot, where = _pairs(_per_slot(stage, coefficients, terms) < 0)

    ray = pick(stage.frame, slot) * rays + where
    seen = (~pick(hidden, ray)).nonzero().squeeze(1)
    ray, slot, where = pick(ray, seen), pick(slot, seen), pick(where, seen)
    blocked = _blocked(stage, slot, pick_rays(place, pick(stage.frame, slot), where, len(stage.times)))
    dark = pick(ray, blocked)
    return dark if slots == 1 else dark.unique()


def body_shadows(stage: Stage, slot: Tensor, place: Tensor) -> Tensor:
    """Which points (3, N) in the world, each on (and `BIAS` off) the part in its own `slot`, lie in shadow: indices.

    The part itself is left out: all parts are convex, so none stands in its own light.
    """
    slots = stage.slots
    if slots == 1:
        return slot[:0]
    frame = pick(stage.frame, slot)
    light = pick(stage.light.T, frame // len(stage.times))  # (3, N)
    close = []
    for part in range(slots):
        other = frame * slots + part
        towards, reach = pick(stage.position, other) - place, pick(stage.reach, other)
        along = dot(towards, light)
        apart = dot(towards, towards) - along**2
        near = (apart < reach**2 * (1 + 1e-3) + 1e-3) & (along > -reach - 1e-3)
        close.append(near & (reach > 0) & (other != slot))
    pair = torch.cat(close).nonzero().squeeze(1)
    point = pair % len(slot)
    other = pick(frame, point) * slots + pair // len(slot)
    blocked = _blocked(stage, other, pick(place, point))
    return pick(point, blocked).unique()


def _blocked(stage: Stage, slot: Tensor, place: Tensor) -> Tensor:
    """Indices of those of N pairs whose part, in `slot` (N,), stands between `place` (3, N) and the light."""
    per_scene = len(stage.times) * stage.slots
    light = stage.light.T.repeat_interleave(per_scene, 1)  # (3, S)
    towards = _to_part(light, stage.rotation.view(9, -1), stage.size)
    o, d = _into_part(stage, slot, place - pick(stage.position, slot)), pick(towards, slot)
    return intersect(pick(stage.kind, slot), pick(stage.ratio, slot), o, d).isfinite().nonzero().squeeze(1)


def _nearest(hits: Hits, rays: int) -> Hits:
    """Keep the nearest hit of each ray; of two at the very same distance, the one in the later slot."""
    distance = hits.distance.new_full((rays,), torch.inf).scatter_reduce_(0, hits.ray, hits.distance, "amin")
    hits = hits.pick((hits.distance == pick(distance, hits.ray)).nonzero().squeeze(1))
    owner = torch.zeros(rays, dtype=torch.long, device=hits.slot.device).scatter_reduce_(0, hits.ray, hits.slot, "amax")
    last = hits.slot == pick(owner, hits.ray)
    return hits if bool(last.all()) else hits.pick(last.nonzero().squeeze(1))


def _pairs(close: Tensor) -> tuple[Tensor, Tensor]:
    """Slots (N,) and rays (N,) where (B, T P, R) is true."""
    rays = close.shape[-1]
    pair = close.flatten().nonzero().squeeze(1)
    slot = pair // rays
    return slot, pair - slot * rays


def _per_slot(stage: Stage, left: Tensor, right: Tensor) -> Tensor:
    """Products (B, T P, R) of slot vectors (K, S) with ray vectors (B, F, K, R) of the same scene and frame."""
    count, frames, slots = stage.shape
    left = left.T.reshape(count, frames * slots, -1)
    if right.shape[1] == 1:
        return left @ right[:, 0]
    return (left.view(count, frames, slots, -1) @ right).view(count, frames * slots, -1)


def _across(light: Tensor) -> Tensor:
    """Two unit axes (B, 2, 3) across each unit vector (B, 3)."""
    away = torch.nn.functional.one_hot(light.abs().argmin(-1), 3).to(light)
    side = torch.linalg.cross(light, away)
    side = side / side.norm(dim=-1, keepdim=True)
    return torch.stack([side, torch.linalg.cross(light, side)], 1)


def _into_part(stage: Stage, slot: Tensor, vector: Tensor) -> Tensor:
    """World vectors (3, N) along the axes of slots (N,), in units of their sizes."""
    return _to_part(vector, pick(stage.rotation.view(9, -1), slot), pick(stage.size, slot))


def _to_part(vector: Tensor, rotation: Tensor, size: Tensor) -> Tensor:
    x, y, z = vector
    return torch.stack([x * rotation[j] + y * rotation[3 + j] + z * rotation[6 + j] for j in range(3)]).div_(size)


def _turn(stage: Stage, slot: Tensor, vector: Tensor) -> Tensor:
    """Vectors (3, N) along the axes of slots (N,), in world axes."""
    r = pick(stage.rotation.view(9, -1), slot)
    x, y, z = vector
    return torch.stack([r[3 * i] * x + r[3 * i + 1] * y + r[3 * i + 2] * z for i in range(3)])
