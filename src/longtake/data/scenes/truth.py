"""Ground truth: for every pixel what it shows, how far, how it is turned and where it goes; and tracks, joints, cameras.

All passes are those of the ray through the centre of each pixel (pictures average several rays per pixel, so an edge
pixel mixes what lies on its sides). Pixels are (x, y) with x to the right and y down; centres lie at half integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longtake.data.order import mix_seed
from longtake.data.scenes.camera import CameraPath
from longtake.data.scenes.casting import (
    Hits,
    above_floor,
    cast,
    floor_distance,
    part_to_world,
    pick,
    pick_rays,
    surface,
)
from longtake.data.scenes.figures import FIGURE_PARTS, JOINTS
from longtake.data.scenes.staging import Stage, set_stage
from longtake.data.scenes.world import FPS, Scene
from longtake.errors import BadInput

CLOSE = 2e-3
"""World units by which something must be nearer to the camera to hide a point, plus a ten-thousandth of its distance."""


@dataclass(frozen=True)
class Tracks:
    """N points on the surfaces of one scene's objects, followed through all T frames.

    `pixels` (T, N, 2), `depth` (T, N) along the optical axis, `world` (T, N, 3); `visible` (T, N) is true where a point
    is inside the picture and nothing, its own body included, hides it. `query` (N,) is the frame in which a point was
    chosen (always visible there), `instance` (N,) its 1-based object and `part` (N,) its part number, as in the masks.
    """

    pixels: Tensor
    depth: Tensor
    world: Tensor
    visible: Tensor
    query: Tensor
    instance: Tensor
    part: Tensor


@dataclass(frozen=True)
class Joints:
    """The joints `names` (J of them) of one figure: `world` (T, J, 3), `pixels` (T, J, 2), `depth` (T, J)."""

    world: Tensor
    pixels: Tensor
    depth: Tensor
    names: tuple[str, ...] = JOINTS


@dataclass(frozen=True)
class Truth:
    """What is known about B scenes over T frames.

    Attributes:
        instances: uint8 (B, T, H, W), 0 is background, n the n-th object of the scene.
        parts: uint8 (B, T, H, W), 0 is background, n the n-th part of the object there: of FIGURE_PARTS for figures,
            always 1 for solids.
        depth: float (B, T, H, W), along the optical axis (not along the ray) in world units, infinite in the sky.
        normals: float (B, 3, T, H, W), outward unit vectors in world axes, zero in the sky.
        flow: float (B, 2, T-1, H, W), (x, y) in pixels from a frame to the next, of what the pixel shows; the floor and
            the sky (at infinity) move with the camera. Clouds drift as paint does, they have no flow of their own.
        covisible: bool (B, T-1, H, W), whether what the pixel shows can be seen in the next frame too.
        intrinsics: (B, 3, 3), in pixels. extrinsics: (B, T, 4, 4), from world to camera axes (x right, y down, z ahead).
        tracks: one for each scene. joints: for each scene one per object, None for solids.
        attributes: `Scene.attributes` of each scene.
    """

    instances: Tensor
    parts: Tensor
    depth: Tensor
    normals: Tensor
    flow: Tensor
    covisible: Tensor
    intrinsics: Tensor
    extrinsics: Tensor
    tracks: tuple[Tracks, ...]
    joints: tuple[tuple[Joints | None, ...], ...]
    attributes: tuple[dict[str, Any], ...]

    def boxes(self, scene: int) -> Tensor:
        """Tight boxes (T, objects, 4) as (left, top, right, bottom) in pixels; all -1 where an object is not seen."""
        count = len(self.attributes[scene]["objects"])
        masks = self.instances[scene, :, None] == torch.arange(1, count + 1, device=self.depth.device)[:, None, None]
        ends = []
        for across in (masks.any(2), masks.any(3)):  # (T, objects, W), then (T, objects, H)
            size = across.shape[-1]
            first = across.int().argmax(-1)
            ends.append((first, size - across.flip(-1).int().argmax(-1)))
        box = torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], -1).float()
        return torch.where(masks.flatten(2).any(-1)[..., None], box, -1.0)


def ground_truth(
    scenes: Sequence[Scene],
    frames: int = 17,
    height: int = 64,
    width: int = 64,
    *,
    fps: float = FPS,
    points: int = 64,
    queries: Sequence[int] = (0,),
    seed: int = 0,
    device: str = "cpu",
) -> Truth:
    """Know all about clips of `render_scenes` with the same arguments.

    Args:
        scenes: B scenes.
        frames, height, width: T, H and W of the clips.
        fps: frames per second.
        points: point tracks in each scene, shared among its objects; fewer where an object shows fewer pixels.
        queries: the frames in which the tracked points are chosen, among what is visible there.
        seed: for the choice of points, made for each scene apart.
        device: where to compute.

    Raises:
        BadSize: no frames, rows or columns. BadInput: no scenes, or a query frame that does not exist.
    """
    with torch.no_grad():
        stage = set_stage(scenes, frames, height, width, fps=fps, device=device)
        for query in queries:
            if not 0 <= query < frames:
                raise BadInput(f"points cannot be chosen in frame {query} of {frames}; use 0 to {frames - 1}.")
        direction = stage.directions()
        ground = floor_distance(stage, direction)
        hits = above_floor(stage, cast(stage, direction), ground)
        flow, covisible = _flow(stage, hits, direction, ground)
        return Truth(
            **_passes(stage, hits, direction, ground),
            flow=flow,
            covisible=covisible,
            intrinsics=torch.stack([path.intrinsics for path in stage.paths]).to(device),
            extrinsics=torch.stack([path.extrinsics for path in stage.paths]).to(device),
            tracks=_tracks(stage, hits, points, queries, seed),
            joints=tuple(
                tuple(None if body.joints is None else _joints(path, body.joints, device) for body in group)
                for path, group in zip(stage.paths, stage.bodies, strict=True)
            ),
            attributes=tuple(scene.attributes for scene in scenes),
        )


def instance_maps(
    scenes: Sequence[Scene], frames: int = 17, height: int = 64, width: int = 64, *, fps: float = FPS
) -> Tensor:
    """Which object each pixel shows, without the rest of the truth: uint8 (B, T, H, W), as `Truth.instances`."""
    with torch.no_grad():
        stage = set_stage(scenes, frames, height, width, fps=fps)
        direction = stage.directions()
        hits = above_floor(stage, cast(stage, direction), floor_distance(stage, direction))
        instances = torch.zeros(len(scenes) * frames * height * width, dtype=torch.uint8)
        instances[hits.ray] = pick(stage.instance, hits.slot).to(torch.uint8)
        return instances.view(len(scenes), frames, height, width)


def part_names(shape: str) -> tuple[str, ...]:
    """Names of the parts of a shape; entry n - 1 names the pixels of value n in `Truth.parts`."""
    return FIGURE_PARTS if shape == "figure" else (shape,)


def _passes(stage: Stage, hits: Hits, direction: Tensor, ground: Tensor) -> dict[str, Tensor]:
    count, frames, _ = stage.shape
    height, width = stage.paths[0].height, stage.paths[0].width
    shape = (count, frames, height, width)
    axis = torch.stack([path.rotation[:, 2] for path in stage.paths]).to(direction)[:, : direction.shape[1]]
    slant = (direction * axis[..., None]).sum(2)  # (B, F, R): depth over distance
    depth = (ground * slant).expand(count, frames, -1).flatten().clone()
    frame = pick(stage.frame, hits.slot)
    depth[hits.ray] = hits.distance * pick_rays(slant[:, :, None], frame, hits.where, frames)[0]
    instances = torch.zeros(depth.shape, dtype=torch.uint8, device=depth.device)
    instances[hits.ray] = pick(stage.instance, hits.slot).to(torch.uint8)
    parts = torch.zeros_like(instances)
    parts[hits.ray] = pick(_part_numbers(stage), hits.slot).to(torch.uint8)
    normals = torch.zeros(3, len(depth), device=depth.device)
    normals[2] = depth.isfinite()
    normals[:, hits.ray] = surface(stage, hits)
    return {
        "instances": instances.view(shape),
        "parts": parts.view(shape),
        "depth": depth.view(shape),
        "normals": normals.view(3, *shape).transpose(0, 1).contiguous(),
    }


def _part_numbers(stage: Stage) -> Tensor:
    """1-based number (S,) of each slot's part within its own body."""
    instance = stage.instance.view(-1, stage.slots)
    slot = torch.arange(stage.slots, device=instance.device).expand_as(instance)
    before = torch.where(instance[:, :, None] == instance[:, None], slot[:, None], stage.slots).amin(2)
    return (slot - before + 1).flatten()


def _flow(stage: Stage, hits: Hits, direction: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    count, frames, slots = stage.shape
    height, width = stage.paths[0].height, stage.paths[0].width
    rays = direction.shape[-1]
    # Where in the world what each pixel shows will be one frame later; the sky is a direction, not a place.
    static = stage.eye[:, :, :, None] + direction * torch.where(ground.isfinite(), ground, 0.0)[:, :, None]
    later = static.permute(2, 0, 1, 3).flatten(1).contiguous()
    goes_on = hits.pick((pick(stage.frame, hits.slot) % frames < frames - 1).nonzero().squeeze(1))
    later[:, goes_on.ray] = part_to_world(stage, goes_on.slot + slots, goes_on.point)
    later = later.view(3, count, frames, rays).permute(1, 2, 0, 3)[:, :-1]  # (B, T-1, 3, R)
    solid = ground.isfinite().expand(count, frames, rays).flatten().clone()
    solid[hits.ray] = True
    solid = solid.view(count, frames, rays)[:, :-1]
    towards = later - stage.eye[:, 1:, :, None]
    towards = torch.where(solid[:, :, None], towards, direction.expand(count, frames, 3, rays)[:, :-1])
    pixels, depth = project(stage, towards, slice(1, None))
    centres = torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"), -1).to(
        pixels
    )
    flow = pixels - centres.view(-1, 2)
    distance = torch.where(solid, towards.norm(dim=2), torch.inf)
    seen = _in_picture(pixels, depth, height, width) & _unhidden(stage, towards, distance, slice(1, None))
    shape = (count, frames - 1, height, width)
    return flow.movedim(-1, 1).reshape(count, 2, *shape[1:]), seen.view(shape)


def project(stage: Stage, towards: Tensor, frames: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Pixels (B, F, N, 2) and depths (B, F, N) of what lies at offsets (B, F, 3, N) from the camera at `frames`."""
    turn = torch.stack([path.rotation for path in stage.paths]).to(towards)[:, frames]
    k = torch.stack([path.intrinsics for path in stage.paths]).to(towards)[:, None]
    x, y, depth = (turn @ towards).unbind(2)
    safe = torch.where(depth.abs() < 1e-6, 1e-6, depth)
    x = x / safe * k[..., 0, 0, None] + k[..., 0, 2, None]
    y = y / safe * k[..., 1, 1, None] + k[..., 1, 2, None]
    return torch.stack([x, y], -1), depth


def _in_picture(pixels: Tensor, depth: Tensor, height: int, width: int) -> Tensor:
    x, y = pixels.unbind(-1)
    return (depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)


def _unhidden(stage: Stage, towards: Tensor, distance: Tensor, frames: slice) -> Tensor:
    """Whether nothing stands before what lies at offsets (B, F, 3, N), `distance` (B, F, N), at the given frames."""
    count, every, _ = stage.shape
    rays = towards.shape[-1]
    direction = torch.zeros(count, every, 3, rays, device=towards.device)
    direction[:, :, 0] = 1.0
    direction[:, frames] = towards / towards.norm(dim=2, keepdim=True).clamp_min(1e-9)
    hits = cast(stage, direction)
    nearest = floor_distance(stage, direction)
    flat = nearest.view(-1)
    flat.scatter_reduce_(0, hits.ray, hits.distance, "amin")
    return nearest[:, frames] >= torch.where(distance.isinf(), distance, distance * (1 - 1e-4) - CLOSE)


def _tracks(stage: Stage, hits: Hits, points: int, queries: Sequence[int], seed: int) -> tuple[Tracks, ...]:
    count, frames, slots = stage.shape
    frame = pick(stage.frame, hits.slot)
    asked = torch.isin(frame % frames, torch.tensor(list(queries), device=frame.device))
    instance, numbers = pick(stage.instance, hits.slot), _part_numbers(stage)
    chosen = []
    for b, scene in enumerate(stage.scenes):
        generator = torch.Generator().manual_seed(mix_seed(seed, scene.seed))
        objects = len(scene.objects)
        picked = []
        for number in range(1, objects + 1):
            shown = (asked & (frame // frames == b) & (instance == number)).nonzero().squeeze(1).cpu()
            share = points // objects + (number <= points % objects)
            picked.append(shown[torch.randperm(len(shown), generator=generator)[:share].sort().values])
        chosen.append(hits.pick(torch.cat(picked).to(frame.device)))
    # All scenes' points side by side in each frame: (B, T, 3, N) with N the largest count, the rest out of sight.
    most = max(1, *(len(c.ray) for c in chosen))
    world = torch.zeros(count, frames, 3, most, device=frame.device)
    for b, c in enumerate(chosen):
        n = len(c.ray)
        part = c.slot % slots
        slot = (b * frames + torch.arange(frames, device=part.device)[:, None]) * slots + part  # (T, n)
        place = part_to_world(stage, slot.flatten(), c.point.repeat(1, frames))
        world[b, :, :, :n] = place.view(3, frames, n).transpose(0, 1)
    towards = world - stage.eye[..., None]
    pixels, depth = project(stage, towards)
    seen = _in_picture(pixels, depth, stage.paths[0].height, stage.paths[0].width)
    seen &= _unhidden(stage, towards, towards.norm(dim=2), slice(None))
    return tuple(
        Tracks(
            pixels=pixels[b, :, : len(c.ray)],
            depth=depth[b, :, : len(c.ray)],
            world=world[b, :, :, : len(c.ray)].transpose(1, 2).contiguous(),
            visible=seen[b, :, : len(c.ray)],
            query=pick(stage.frame, c.slot) % frames,
            instance=pick(stage.instance, c.slot),
            part=pick(numbers, c.slot),
        )
        for b, c in enumerate(chosen)
    )


def _joints(path: CameraPath, joints: Tensor, device: str) -> Joints:
    pixels, depth = path.project(joints)
    return Joints(joints.to(device), pixels.to(device), depth.to(device))
