"""The one convention for pixels: float (B, C, T, H, W) in [-1, 1] with the frame rate beside it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.video.sound import Sound


@dataclass(frozen=True, eq=False)
class Clip:
    """Pixels with their frame rate.

    Attributes:
        pixels: float (B, C, T, H, W), -1 is black and 1 is white, C is 3 (RGB) or 1 (grey).
        fps: frames per second, finite and above zero.
        times: seconds of each frame counted from the first frame of the file it was read from, or None when the
            clip was not read from a file. Under a variable frame rate these are the truth and ``fps`` is the mean.
        sound: what is heard with it, from its first frame on, or None; ``write_clip`` writes it too.

    Raises:
        BadInput: another rank, another kind of number, no frames, an impossible fps, or times of another length.
    """

    pixels: Tensor
    fps: float
    times: tuple[float, ...] | None = None
    sound: Sound | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 5 or 0 in pixels.shape:
            raise BadInput(f"a clip has shape (batch, channels, frames, height, width); this one has {_shape(pixels)}.")
        if not pixels.is_floating_point():
            raise BadInput(f"a clip holds floats in [-1, 1], not {pixels.dtype}; from_uint8 converts bytes.")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise BadInput(f"fps is {self.fps}; it must be a number above zero.")
        if self.times is not None and len(self.times) != pixels.shape[2]:
            raise BadInput(f"a clip of {pixels.shape[2]} frames came with {len(self.times)} times.")

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return self.pixels.shape[2]

    @property
    def height(self) -> int:
        """Rows H."""
        return self.pixels.shape[3]

    @property
    def width(self) -> int:
        """Columns W."""
        return self.pixels.shape[4]

    @property
    def seconds(self) -> float:
        """Playing time at ``fps``, the last frame included."""
        return self.frames / self.fps


def to_uint8(pixels: Tensor) -> Tensor:
    """(..., C, T, H, W) float in [-1, 1] -> (..., T, H, W, C) uint8, rounded to nearest; NaN becomes mid grey."""
    levels = torch.nan_to_num(pixels.detach().float(), nan=0.0).add(1).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).movedim(-4, -1)


def from_uint8(frames: Tensor) -> Tensor:
    """(..., T, H, W, C) uint8 -> (..., C, T, H, W) float32 in [-1, 1], contiguous; ``to_uint8`` inverts it exactly."""
    return frames.movedim(-1, -4).to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"
