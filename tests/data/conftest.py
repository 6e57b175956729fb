"""Small videos and frame folders whose every pixel is known, written by the tests themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from longtake.video import from_uint8, write_clip


def picture(number: int, height: int, width: int, key: int = 0) -> Tensor:
    """Frame `number` of video `key`: uint8 (height, width, 3), noise over a ramp, different for every frame."""
    generator = torch.Generator().manual_seed(1000 * key + number)
    noise = torch.randint(0, 64, (height, width, 3), generator=generator)
    ramp = torch.linspace(0, 150, width)[None, :, None] + torch.linspace(0, 40, height)[:, None, None]
    return (noise + ramp).clamp(0, 255).to(torch.uint8)


def pictures(count: int, height: int = 24, width: int = 32, key: int = 0) -> Tensor:
    """A whole video: uint8 (count, height, width, 3)."""
    return torch.stack([picture(number, height, width, key) for number in range(count)])


@pytest.fixture
def write_video() -> Callable[..., Tensor]:
    """Write a lossless video and return its frames."""

    def write(path: Path, count: int, height: int = 24, width: int = 32, *, key: int = 0, fps: float = 25.0) -> Tensor:
        frames = pictures(count, height, width, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(from_uint8(frames), path, fps=fps, codec="ffv1" if path.suffix in (".avi", ".mkv") else "libx264")
        return frames

    return write


@pytest.fixture
def write_frames() -> Callable[..., Tensor]:
    """Write a folder of numbered PNGs and return its frames."""

    def write(
        folder: Path,
        count: int,
        height: int = 24,
        width: int = 32,
        *,
        key: int = 0,
        name: str = "{:06d}.png",
        first: int = 0,
    ) -> Tensor:
        frames = pictures(count, height, width, key)
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames, first):
            Image.fromarray(frame.numpy()).save(folder / name.format(number))
        return frames

    return write
