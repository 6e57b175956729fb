"""A batch of scenes laid out as tensors, ready for rays.

Every part of every body at every frame is one slot: slot ``(b * T + t) * P + p`` is part ``p`` of scene ``b`` at frame
``t``. Vectors come as (3, slots) and matrices as (3, 3, slots), components first, so that the arithmetic on them runs
over contiguous memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.bodies import build_bodies
from longtake.data.scenes.camera import CameraPath, camera_path
from longtake.data.scenes.parts import BOX, CAPSULE, SPHERE, Body
from longtake.data.scenes.world import FPS, Scene
from longtake.errors import BadInput, BadSize


@dataclass(frozen=True)
class Stage:
    """A batch of B scenes over T frames with P part slots per scene and frame; unused slots have kind -1.

    `kind`, `ratio`, `texture`, `tone`, `repeats` and `instance` (1-based object number) are (S,) with S = B T P slots;
    `colour`, `position`, `size` (3, S); `rotation` (3, 3, S), from the part's axes to the world's. `reach` (S,) is the
    radius of the bounding sphere, -1 in unused slots, and `frame` (S,) the flat frame ``b * T + t``. `eye` (B, T, 3) is
    the camera's centre and `light` (B, 3) the unit vector towards the light.
    """

    scenes: tuple[Scene, ...]
    paths: tuple[CameraPath, ...]
    bodies: tuple[tuple[Body, ...], ...]
    times: Tensor
    slots: int
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
    reach: Tensor
    frame: Tensor
    eye: Tensor
    light: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, T, P)."""
        return len(self.scenes), len(self.times), self.slots

    @property
    def moves(self) -> bool:
        """Whether any camera of the batch moves."""
        return any(path.moves for path in self.paths)

    def directions(self, supersample: int = 1) -> Tensor:
        """Camera rays (B, F, 3, R), unit, row by row of the picture; F is T, or 1 when no camera moves."""
        frames = len(self.times) if self.moves else 1
        rays = torch.stack([path.rays(supersample, frames) for path in self.paths])
        return rays.transpose(2, 3).contiguous().to(self.eye.device)


def set_stage(
    scenes: Sequence[Scene], frames: int, height: int, width: int, *, fps: float = FPS, device: str = "cpu"
) -> Stage:
    """Pose a batch of scenes for `frames` frames at `fps`, to be seen in a `height` x `width` picture.

    Raises:
        BadSize: no frames, rows or columns. BadInput: no scenes, or an fps that is not above zero.
    """
    for name, value in (("frames", frames), ("height", height), ("width", width)):
        if value < 1:
            raise BadSize(f"a scene cannot be rendered with {name} {value}; use 1 or more.")
    if not scenes:
        raise BadInput("there are no scenes to render; pass at least one.")
    if not fps > 0:
        raise BadInput(f"a scene cannot be rendered at {fps} frames per second; use a number above zero.")
    times = torch.arange(frames) / fps
    bodies = [build_bodies(scene, times) for scene in scenes]
    paths = [camera_path(scene.camera, times, height, width) for scene in scenes]
    count, slots = len(scenes), max(sum(len(body.parts) for body in group) for group in bodies)
    fixed = {  # (B, T, P, ...): the same in all frames
        "kind": torch.full((count, frames, slots), -1),
        "texture": torch.zeros(count, frames, slots, dtype=torch.long),
        "instance": torch.zeros(count, frames, slots, dtype=torch.long),
        "ratio": torch.zeros(count, frames, slots),
        "tone": torch.ones(count, frames, slots),
        "repeats": torch.ones(count, frames, slots),
        "colour": torch.zeros(count, frames, slots, 3),
    }
    moving = {
        "position": torch.zeros(count, frames, slots, 3),
        "size": torch.ones(count, frames, slots, 3),
        "rotation": torch.eye(3).repeat(count, frames, slots, 1, 1),
    }
    for b, group in enumerate(bodies):
        owned = [(number, part) for number, body in enumerate(group, start=1) for part in body.parts]
        for p, (number, part) in enumerate(owned):
            fixed["instance"][b, :, p] = number
            fixed["colour"][b, :, p] = torch.tensor(part.colour)
            for name in ("kind", "texture", "ratio", "tone", "repeats"):
                fixed[name][b, :, p] = getattr(part, name)
            for name in moving:
                moving[name][b, :, p] = getattr(part, name)
    light = torch.tensor([scene.light for scene in scenes])
    table = {
        **{name: v.flatten(0, 2).movedim(0, -1).contiguous().to(device) for name, v in {**fixed, **moving}.items()},
        "eye": torch.stack([path.centre for path in paths]).to(device),
        "light": (light / light.norm(dim=-1, keepdim=True)).to(device),
    }
    table["reach"] = _reach(table["kind"], table["ratio"], table["size"])
    table["frame"] = torch.arange(count * frames, device=device).repeat_interleave(slots)
    return Stage(tuple(scenes), tuple(paths), tuple(map(tuple, bodies)), times.to(device), slots, **table)


def _reach(kind: Tensor, ratio: Tensor, size: Tensor) -> Tensor:
    """Radius (S,) of each slot's bounding sphere, -1 where there is no part."""
    x, y, z = size
    across = torch.maximum(x, y)
    tube = (across**2 + z * z).sqrt()  # cylinder and cone
    options = {SPHERE: torch.maximum(across, z), BOX: (size * size).sum(0).sqrt(), CAPSULE: across + z * ratio}
    for name, value in options.items():
        tube = torch.where(kind == name, value, tube)
    return torch.where(kind >= 0, tube, torch.full_like(tube, -1.0))
