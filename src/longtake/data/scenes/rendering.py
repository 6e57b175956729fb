"""The renderer: analytic ray casting of a batch of scenes, vectorised over scenes, parts, frames and pixels.

Rays first meet each part's bounding sphere in one matrix product; only the rays that pass (a few per cent) are
intersected exactly, as one flat list. A second cast towards the light gives hard shadows; `supersample` squared rays
per pixel give smooth edges. Nothing is random here: a scene holds all its numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.bodies import Body, build_bodies
from longtake.data.scenes.camera import CameraPath, camera_path
from longtake.data.scenes.primitives import intersect, normal
from longtake.data.scenes.surfaces import backdrop_colour, floor_colour, textured
from longtake.data.scenes.world import FPS, Scene
from longtake.errors import BadSize

AMBIENT, DIFFUSE = 0.62, 0.5
BIAS = 2e-3
"""Distance in world units by which shadow rays start off their surface."""


@dataclass(frozen=True)
class Stage:
    """A batch of B scenes laid out as tensors: P part slots (unused ones have kind -1), T frames.

    `kind`, `ratio`, `texture`, `tone`, `repeats`, `instance` (1-based object number) are (B, P); `colour` (B, P, 3);
    `position`, `size` (B, P, T, 3); `rotation` (B, P, T, 3, 3); `centre` (B, T, 3); `light` (B, 3) unit vectors.
    """

    scenes: tuple[Scene, ...]
    paths: tuple[CameraPath, ...]
    bodies: tuple[tuple[Body, ...], ...]
    times: Tensor
    kind: Tensor
    ratio: Tensor
    texture: Tensor
    tone: Tensor
    repeats: Tensor
    instance: Tensor
    colour: Tensor
    position: Tensor
    size: Tensor
    rotation: Tensor
    centre: Tensor
    light: Tensor

    @property
    def reach(self) -> Tensor:
        """Radius of each part's bounding sphere (B, P, T)."""
        x, y, z = self.size.unbind(-1)
        round_ = torch.maximum(x, torch.maximum(y, z))
        box = (x * x + y * y + z * z).sqrt()
        tube = (torch.maximum(x, y) ** 2 + z * z).sqrt()
        pill = x * (1 + self.ratio[..., None])
        kind = self.kind[..., None].expand_as(x)
        return torch.where(kind == 0, round_, torch.where(kind == 1, box, torch.where(kind == 4, pill, tube)))


@dataclass(frozen=True)
class Hits:
    """What each ray met: `distance` (B, T, R), infinite for none, and `part` (B, T, R), the slot or -1."""

    distance: Tensor
    part: Tensor


def set_stage(
    scenes: Sequence[Scene], frames: int, height: int, width: int, *, fps: float = FPS, device: str = "cpu"
) -> Stage:
    """Pose a batch of scenes for `frames` frames at `fps`."""
    for name, value in (("frames", frames), ("height", height), ("width", width)):
        if value < 1:
            raise BadSize(f"a scene cannot be rendered with {name} {value}; use 1 or more.")
    times = torch.arange(frames) / fps
    bodies = [build_bodies(scene, times) for scene in scenes]
    paths = [camera_path(scene.camera, times, height, width) for scene in scenes]
    slots = max(sum(len(body.parts) for body in group) for group in bodies)
    count = len(scenes)
    table = {
        "kind": torch.full((count, slots), -1),
        "texture": torch.zeros(count, slots, dtype=torch.long),
        "instance": torch.zeros(count, slots, dtype=torch.long),
        "ratio": torch.zeros(count, slots),
        "tone": torch.ones(count, slots),
        "repeats": torch.ones(count, slots),
        "colour": torch.zeros(count, slots, 3),
        "position": torch.zeros(count, slots, frames, 3),
        "size": torch.ones(count, slots, frames, 3),
        "rotation": torch.eye(3).expand(count, slots, frames, 3, 3).clone(),
    }
    for b, group in enumerate(bodies):
        owned = [(number, part) for number, body in enumerate(group, start=1) for part in body.parts]
        for p, (number, part) in enumerate(owned):
            table["instance"][b, p] = number
            for name in ("kind", "texture", "ratio", "tone", "repeats"):
                table[name][b, p] = getattr(part, name)
            table["colour"][b, p] = torch.tensor(part.colour)
            for name in ("position", "size", "rotation"):
                table[name][b, p] = getattr(part, name)
    light = torch.tensor([scene.light for scene in scenes])
    table["centre"] = torch.stack([path.centre for path in paths])
    table["light"] = light / light.norm(dim=-1, keepdim=True)
    moved = {name: value.to(device) for name, value in table.items()}
    return Stage(tuple(scenes), tuple(paths), tuple(tuple(g) for g in bodies), times.to(device), **moved)


def cast(stage: Stage, origin: Tensor, direction: Tensor, active: Tensor | None = None) -> Hits:
    """Nearest part along rays of unit `direction` (B, T, R, 3) from `origin` (B, T, R, 3) or (B, T, 1, 3).

    `active` (B, T, R) leaves out rays that need no answer.
    """
    count, frames, rays = direction.shape[:3]
    centre = stage.position.transpose(1, 2)  # (B, T, P, 3)
    along = centre @ direction.transpose(2, 3) - (origin * direction).sum(-1)[:, :, None]  # (B, T, P, R)
    apart = (centre**2).sum(-1, keepdim=True) - 2 * centre @ origin.transpose(2, 3) + (origin**2).sum(-1)[:, :, None]
    bound = stage.reach.transpose(1, 2)[..., None]
    close = (apart - along**2 < bound**2) & (along > -bound) & (stage.kind >= 0)[:, None, :, None]
    if active is not None:
        close &= active[:, :, None]
    b, t, p, r = close.nonzero().unbind(1)

    o, d = to_part(stage, b, p, t, origin.expand_as(direction)[b, t, r], direction[b, t, r])
    found = intersect(stage.kind[b, p], stage.ratio[b, p], o, d)
    flat = (b * frames + t) * rays + r
    distance = direction.new_full((count * frames * rays,), torch.inf)
    distance.scatter_reduce_(0, flat, found, "amin")
    part = torch.full((count * frames * rays,), -1, device=direction.device)
    winner = (found == distance[flat]) & found.isfinite()
    part[flat[winner]] = p[winner]
    return Hits(distance.view(count, frames, rays), part.view(count, frames, rays))


def to_part(stage: Stage, b: Tensor, p: Tensor, t: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Rays (N, 3) in the canonical coordinates of part `p` of scene `b` at frame `t`; the ray parameter is unchanged."""
    rotation, size = stage.rotation[b, p, t], stage.size[b, p, t]
    o = ((origin - stage.position[b, p, t])[:, None] @ rotation)[:, 0] / size
    d = (direction[:, None] @ rotation)[:, 0] / size
    return o, d


def surface(stage: Stage, hits: Hits, direction: Tensor) -> tuple[Tensor, ...]:
    """Canonical points and world normals where camera rays met parts: index (b, t, r), part p, points, normals."""
    b, t, r = (hits.part >= 0).nonzero().unbind(1)
    p = hits.part[b, t, r]
    o, d = to_part(stage, b, p, t, stage.centre[b, t], direction[b, t, r])
    point = o + hits.distance[b, t, r, None] * d
    outward = normal(stage.kind[b, p], stage.ratio[b, p], point) / stage.size[b, p, t]
    outward = (stage.rotation[b, p, t] @ outward[..., None])[..., 0]
    return b, t, r, p, point, outward / outward.norm(dim=-1, keepdim=True).clamp_min(1e-8)


def directions(stage: Stage, supersample: int) -> Tensor:
    """Camera rays of the batch (B, T, R, 3)."""
    return torch.stack([path.rays(supersample) for path in stage.paths]).to(stage.centre)


def floor_distance(stage: Stage, direction: Tensor) -> Tensor:
    """Distance (B, T, R) along camera rays to the floor, infinite above the horizon."""
    down = direction[..., 2]
    distance = -stage.centre[..., 2:3] / torch.where(down < -1e-6, down, torch.full_like(down, -1e-6))
    return torch.where(down < -1e-6, distance, torch.full_like(distance, torch.inf))


def shade(stage: Stage, supersample: int = 2) -> Tensor:
    """Render the batch: display values (B, 3, T, H, W) in [0, 1]."""
    direction = directions(stage, supersample)
    origin = stage.centre[:, :, None]
    hits = cast(stage, origin, direction)
    ground = floor_distance(stage, direction)
    on_floor = ground < hits.distance
    b, t, r, p, point, outward = surface(stage, hits, direction)

    nearest = torch.minimum(ground, hits.distance)
    solid = nearest.isfinite()
    place = origin + direction * torch.where(solid, nearest, torch.zeros_like(nearest))[..., None]
    facing = torch.zeros_like(place)
    facing[..., 2] = 1.0
    facing[b, t, r] = outward
    light = stage.light[:, None, None]
    lit = (facing * light).sum(-1).clamp_min(0)
    shadow = cast(stage, place + BIAS * facing, light.expand_as(direction), solid & (lit > 0) & (nearest < 25))
    lit = torch.where(shadow.part >= 0, torch.zeros_like(lit), lit)

    colour = torch.empty_like(direction)
    seconds = stage.times[:, None].expand(direction.shape[1:3])
    for i, scene in enumerate(stage.scenes):
        above = backdrop_colour(scene.background, direction[i], seconds)
        below = floor_colour(scene.background, place[i], direction[i], nearest[i])
        # Flat floors keep their named colour in full light; only shadows darken them.
        shine = 0.62 + 0.38 * (lit[i] > 0)
        colour[i] = torch.where(on_floor[i, ..., None], below * shine[..., None], above)
    paint = stage.colour[b, p] * textured(stage.texture[b, p], stage.repeats[b, p], stage.tone[b, p], point)[:, None]
    top = on_floor[b, t, r]
    glow = (AMBIENT + DIFFUSE * lit[b, t, r])[:, None]
    colour[b, t, r] = torch.where(top[:, None], colour[b, t, r], paint * glow)

    path = stage.paths[0]
    s = supersample
    picture = colour.view(len(stage.scenes), len(stage.times), path.height, s, path.width, s, 3).mean((3, 5))
    return picture.clamp(0, 1).permute(0, 4, 1, 2, 3).contiguous()


def render_scenes(
    scenes: Sequence[Scene],
    frames: int = 17,
    height: int = 64,
    width: int = 64,
    *,
    fps: float = FPS,
    supersample: int = 2,
    device: str = "cpu",
) -> Tensor:
    """Render scenes to a clip tensor (B, 3, T, H, W) in [-1, 1]; see `truth.ground_truth` for masks, depth and flow."""
    with torch.no_grad():
        return shade(set_stage(scenes, frames, height, width, fps=fps, device=device), supersample) * 2 - 1
