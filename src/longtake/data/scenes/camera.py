"""Cameras: paths, intrinsics, extrinsics and projection, in the computer-vision convention (x right, y down, z ahead)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.data.scenes.motion import REFERENCE_SECONDS
from longtake.data.scenes.world import Camera


@dataclass(frozen=True)
class CameraPath:
    """A camera over T frames.

    `centre` (T, 3) in world units; `rotation` (T, 3, 3) from world to camera axes; `intrinsics` (3, 3) in pixels for a
    `height` x `width` picture whose pixel centres lie at half-integer coordinates.
    """

    centre: Tensor
    rotation: Tensor
    intrinsics: Tensor
    height: int
    width: int

    @property
    def extrinsics(self) -> Tensor:
        """World-to-camera matrices (T, 4, 4)."""
        matrix = torch.eye(4).repeat(len(self.centre), 1, 1)
        matrix[:, :3, :3] = self.rotation
        matrix[:, :3, 3] = -(self.rotation @ self.centre[..., None])[..., 0]
        return matrix

    @property
    def moves(self) -> bool:
        """Whether any two frames are seen from different places or in different directions."""
        return bool((self.centre != self.centre[:1]).any() or (self.rotation != self.rotation[:1]).any())

    def rays(self, supersample: int = 1, frames: int | None = None) -> Tensor:
        """Unit world directions (T, H * s * W * s, 3), row by row, `s` samples per pixel side; of the first `frames`."""
        rows = (torch.arange(self.height * supersample) + 0.5) / supersample
        columns = (torch.arange(self.width * supersample) + 0.5) / supersample
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        k = self.intrinsics
        ahead = torch.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], torch.ones_like(u)], -1).view(-1, 3)
        world = ahead @ self.rotation[:frames]  # (T, R, 3): rows times world-to-camera is camera-to-world
        return world / world.norm(dim=-1, keepdim=True)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (T, N, 2) as (x, y) and depths (T, N) along the optical axis of world points (T, N, 3)."""
        seen = (points - self.centre[:, None]) @ self.rotation.transpose(1, 2)
        depth = seen[..., 2]
        safe = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
        k = self.intrinsics
        x = seen[..., 0] / safe * k[0, 0] + k[0, 2]
        y = seen[..., 1] / safe * k[1, 1] + k[1, 2]
        return torch.stack([x, y], -1), depth


def camera_path(camera: Camera, times: Tensor, height: int, width: int) -> CameraPath:
    """Place the camera at `times` (T,) seconds; moving cameras are centred on the middle of the reference clip."""
    stem, _, side = camera.kind.partition("-")
    way = 1.0 if side in ("right", "up", "in") else -1.0
    course = way * camera.amount * (times / REFERENCE_SECONDS - 0.5)  # -1/2 to 1/2 at amount 1
    still = torch.zeros_like(times)
    azimuth = camera.azimuth + (course * 0.9 if stem == "orbit" else still)
    distance = camera.distance - (course * 2.8 if stem == "dolly" else still)
    pan = course * 0.3 if stem == "pan" else still
    tilt = course * 0.3 if stem == "tilt" else still

    target = torch.tensor(camera.target)
    rise = camera.height - camera.target[2]
    level = (distance**2 - rise**2).clamp_min(0.25).sqrt()
    centre = target + torch.stack([level * azimuth.sin(), -level * azimuth.cos(), rise + still], -1)
    ahead = target - centre
    heading = torch.atan2(ahead[:, 0], ahead[:, 1]) + pan
    pitch = torch.atan2(ahead[:, 2], ahead[:, :2].norm(dim=-1)) + tilt
    z = torch.stack([heading.sin() * pitch.cos(), heading.cos() * pitch.cos(), pitch.sin()], -1)
    x = torch.stack([heading.cos(), -heading.sin(), still], -1)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], 1)
    focal = 0.5 * height / math.tan(camera.field / 2)
    if width < height:  # keep the scene in a tall picture
        focal = 0.5 * width / math.tan(camera.field / 2)
    intrinsics = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return CameraPath(centre, rotation, intrinsics, height, width)
