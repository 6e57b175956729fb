"""The renderer: analytic ray casting of a batch of scenes, vectorised over scenes, parts, frames and pixels.

The world without objects is painted first, once for all frames where neither camera nor clouds move. Then the rays that
meet an object, and the floor points that lie in shadow, replace what they cover. Shadows are hard; `supersample`
squared rays per pixel give smooth edges. Nothing is random here: a scene holds all its numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from longtake.data.scenes.casting import (
    BIAS,
    SIGHT,
    Hits,
    above_floor,
    body_shadows,
    cast,
    floor_distance,
    floor_shadows,
    pick,
    pick_rays,
    surface,
)
from longtake.data.scenes.staging import Stage, set_stage
from longtake.data.scenes.surfaces import backdrop_colour, floor_colour, textured
from longtake.data.scenes.world import FPS, Scene

AMBIENT, DIFFUSE = 0.62, 0.5
SHADE = 0.62
"""What a shadow leaves of the floor's colour; a lit floor keeps its named colour."""
RAYS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 25}
"""What stays in a CPU's cache, or fills a GPU."""


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
    """Render scenes to a clip tensor (B, 3, T, H, W) in [-1, 1]; see `truth.ground_truth` for masks, depth and flow.

    Scenes are rendered a few at a time, so working memory does not grow with their number, and a scene looks the same
    alone as among others.

    Raises:
        BadSize: no frames, rows or columns. BadInput: no scenes, or an fps that is not above zero.
    """
    rays = max(1, frames * height * width * supersample**2)
    group = max(1, RAYS_AT_ONCE.get(torch.device(device).type, RAYS_AT_ONCE["cpu"]) // rays)
    with torch.no_grad():
        clips = [
            shade(set_stage(scenes[first : first + group], frames, height, width, fps=fps, device=device), supersample)
            for first in range(0, max(len(scenes), 1), group)
        ]
        return torch.cat(clips).mul_(2).sub_(1)


def shade(stage: Stage, supersample: int = 2) -> Tensor:
    """Render the batch: display values (B, 3, T, H, W) in [0, 1]."""
    count, frames, _ = stage.shape
    direction = stage.directions(supersample)  # (B, F, 3, R)
    ground = floor_distance(stage, direction)  # (B, F, R)
    world, place = paint_world(stage, direction, ground)  # (B, E, 3, R), (B, F, 3, R)

    hits = above_floor(stage, cast(stage, direction), ground)
    hidden = torch.zeros(count * frames * direction.shape[-1], dtype=torch.bool, device=direction.device)
    hidden[hits.ray] = True
    lit = (ground < SIGHT) & (stage.light[:, 2] > 0)[:, None, None]
    dark = floor_shadows(stage, place, lit, hidden)

    ray = torch.cat([hits.ray, dark])
    frame = ray // direction.shape[-1]
    before = pick_rays(world, frame, ray - frame * direction.shape[-1], frames)
    after = torch.cat([paint_bodies(stage, hits, direction), SHADE * before[:, len(hits.ray) :]], 1)
    return develop(stage, world, ray, frame, after - before, supersample)


def develop(stage: Stage, world: Tensor, ray: Tensor, frame: Tensor, change: Tensor, supersample: int) -> Tensor:
    """Average the rays of each pixel: an image of rays (B, E, 3, R), E = T or 1, with a `change` (3, N) at N of them.

    Averaging the world first and adding the changes' shares saves an image of all rays of all frames.
    """
    count, frames, _ = stage.shape
    height, width = stage.paths[0].height, stage.paths[0].width
    rays, area = world.shape[-1], height * width
    picture = avg_pool2d(world.flatten(0, 1).view(-1, 3, height * supersample, width * supersample), supersample)
    picture = picture.view(count, -1, 3, area).transpose(1, 2).expand(-1, -1, frames, -1).contiguous()
    row = torch.arange(height * supersample, device=ray.device) // supersample
    column = torch.arange(width * supersample, device=ray.device) // supersample
    pixel = (row[:, None] * width + column).flatten()  # (R,)
    b = frame // frames if count > 1 else 0
    target = (frame + b * (2 * frames)) * area + pick(
        pixel, ray - frame * rays
    )  # in the first channel of (B, 3, T, HW)
    flat = picture.view(-1)
    for channel in range(3):
        flat.scatter_add_(0, target + channel * (frames * area), change[channel] / supersample**2)
    return picture.clamp_(0, 1).view(count, 3, frames, height, width)


def paint_world(stage: Stage, direction: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Paint floor and sky without objects or shadows.

    Returns:
        Colours (B, E, 3, R) in [0, 1], where E is 1 if neither a camera nor a cloud moves and else T; and the places
        (B, F, 3, R) where camera rays meet the floor (the camera itself where they do not).
    """
    views, rays = direction.shape[1], direction.shape[-1]
    below = ground.isfinite()
    reached = torch.where(below, ground, 0.0)
    place = stage.eye[:, :views, :, None] + direction * reached[:, :, None]
    drifts = any(scene.background.kind == "sky" for scene in stage.scenes)
    shown = len(stage.times) if drifts else views
    world = direction.new_empty(len(stage.scenes), 3, shown, rays)
    for b, scene in enumerate(stage.scenes):
        towards = direction[b].transpose(0, 1).flatten(1)  # (3, F R)
        floor = floor_colour(scene.background, place[b].transpose(0, 1).flatten(1), towards, reached[b].flatten())
        if scene.background.kind == "sky":
            towards = direction[b].expand(shown, -1, -1).transpose(0, 1).flatten(1)
        seconds = stage.times.repeat_interleave(rays) if scene.background.kind == "sky" else None
        above = backdrop_colour(scene.background, towards, seconds)
        world[b] = torch.where(below[b], floor.view(3, views, rays), above.view(3, -1, rays))
    return world.transpose(1, 2).contiguous(), place


def paint_bodies(stage: Stage, hits: Hits, direction: Tensor) -> Tensor:
    """Colours (3, N) in [0, 1] of what camera rays (B, F, 3, R) hit."""
    frames, slot = len(stage.times), hits.slot
    outward, frame = surface(stage, hits), pick(stage.frame, hits.slot)
    light = pick(stage.light.T.repeat_interleave(frames, 1), frame)
    lit = (outward * light).sum(0).clamp_min(0)
    asked = ((lit > 0) & (hits.distance < SIGHT)).nonzero().squeeze(1)
    place = pick(stage.eye.view(-1, 3).T, frame) + pick_rays(direction, frame, hits.where, frames) * hits.distance
    dark = body_shadows(stage, pick(slot, asked), pick(place + BIAS * outward, asked))
    lit[pick(asked, dark)] = 0.0
    tone = textured(pick(stage.texture, slot), pick(stage.repeats, slot), pick(stage.tone, slot), hits.point)
    return pick(stage.colour, slot) * tone * (AMBIENT + DIFFUSE * lit)
