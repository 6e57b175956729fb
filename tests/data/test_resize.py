"""Pixel equality with small references written from the published descriptions, in numpy, one output pixel at a time."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.data.resize import resize_frames
from longtake.errors import BadVideo, UnknownName


def noise(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def bilinear(frames: np.ndarray, height: int, width: int, scale_y: float, scale_x: float) -> np.ndarray:
    """(T, H, W, C) -> (T, height, width, C): each output pixel's centre looked up between four input pixels."""

    def taps(count: int, limit: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centre = np.maximum((np.arange(count) + 0.5) / scale - 0.5, 0)
        low = np.minimum(np.floor(centre).astype(int), limit - 1)
        return low, np.minimum(low + 1, limit - 1), centre - low

    y0, y1, fy = taps(height, frames.shape[1], scale_y)
    x0, x1, fx = taps(width, frames.shape[2], scale_x)
    rows = frames[:, y0] * (1 - fy)[None, :, None, None] + frames[:, y1] * fy[None, :, None, None]
    return rows[:, :, x0] * (1 - fx)[None, None, :, None] + rows[:, :, x1] * fx[None, None, :, None]


def latte_reference(frames: np.ndarray, size: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    resized = bilinear(frames / 255, math.floor(height * scale), math.floor(width * scale), scale, scale)
    top, left = round((resized.shape[1] - size) / 2), round((resized.shape[2] - size) / 2)
    return (resized[:, top : top + size, left : left + size] - 0.5) / 0.5


def sky_reference(frames: np.ndarray, size: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    square = frames[:, top : top + side, left : left + side] / 255
    return (bilinear(square, size, size, size / side, size / side) - 0.5) / 0.5


def tats_reference(frames: np.ndarray, size: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    to = (size, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), size)
    resized = bilinear(frames / 255, *to, to[0] / height, to[1] / width)
    top, left = (to[0] - size) // 2, (to[1] - size) // 2
    return 2 * (resized[:, top : top + size, left : left + size] - 0.5)  # TATS keeps [-0.5, 0.5]


def tats_image_reference(frames: np.ndarray, size: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    half = abs(height - width) // 2
    box = (0, half, width, half + width) if height > width else (half, 0, half + height, height)
    pictures = [Image.fromarray(f).crop(box).resize((size, size), Image.Resampling.LANCZOS) for f in frames]
    return 2 * (np.stack(pictures).astype(np.float32) / 255 - 0.5)


REFERENCES = {
    "latte": latte_reference,
    "latte-sky": sky_reference,
    "tats": tats_reference,
    "tats-image": tats_image_reference,
}


@pytest.mark.parametrize("way", REFERENCES)
@pytest.mark.parametrize(("height", "width"), [(24, 32), (33, 25), (30, 30), (45, 81), (15, 22)])
@pytest.mark.parametrize("size", [16, 20])
def test_published_ways_equal_their_references(way: str, height: int, width: int, size: int) -> None:
    frames = noise(3, height, width)
    expected = REFERENCES[way](frames.numpy(), size).transpose(3, 0, 1, 2)
    got = resize_frames(frames, size, size, way)
    assert got.shape == (3, 3, size, size)
    assert got.dtype == torch.float32
    assert np.abs(got.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("size", [(16, 16), (24, 32), (20, 12), (64, 64)])
@pytest.mark.parametrize(("height", "width"), [(24, 32), (90, 40), (64, 64)])
def test_ours_is_pillows_bicubic_then_centre_crop(height: int, width: int, size: tuple[int, int]) -> None:
    frames = noise(2, height, width) // 2 + 64  # no overshoot, which bytes clip between the passes
    scale = max(size[0] / height, size[1] / width)
    to = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    top, left = (to[0] - size[0]) // 2, (to[1] - size[1]) // 2
    pictures = [np.asarray(Image.fromarray(f).resize(to[::-1], Image.Resampling.BICUBIC)) for f in frames.numpy()]
    expected = np.stack(pictures)[:, top : top + size[0], left : left + size[1]].transpose(3, 0, 1, 2) / 127.5 - 1
    got = resize_frames(frames, *size)
    assert got.shape == (3, 2, *size)
    assert np.abs(got.numpy() - expected).max() < 2.01 * 2 / 255  # both round to bytes, twice


def test_ours_does_not_alias_and_the_published_bilinear_does() -> None:
    stripes = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert resize_frames(stripes, 16, 16).abs().max() < 0.1  # mid grey
    fine = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    fine[:, :, 1::4] = 255
    assert resize_frames(fine, 16, 16, "latte").std() < 1e-6  # every fourth column, looked up at one phase
    assert resize_frames(fine, 16, 16, "latte").mean() == pytest.approx(0.0, abs=1e-5)  # not the true mean, -0.5


def test_no_change_of_size_changes_no_pixel() -> None:
    frames = noise(2, 16, 16)
    exact = frames.permute(3, 0, 1, 2).float() / 127.5 - 1
    for way in ("ours", "latte", "latte-sky", "as-is", "tats", "tats-image"):
        assert torch.allclose(resize_frames(frames, 16, 16, way), exact, atol=1e-6), way


def test_no_side_falls_short_of_the_crop() -> None:
    for side in range(3, 400, 3):
        frames = torch.zeros(1, side, side + 7, 3, dtype=torch.uint8)
        assert resize_frames(frames, 13, 13, "latte").shape[-2:] == (13, 13)


def test_as_is_refuses_another_size() -> None:
    with pytest.raises(BadVideo, match="frames are 20x16 and this preset takes 16x16"):
        resize_frames(noise(1, 16, 20), 16, 16, "as-is")
    with pytest.raises(UnknownName, match="Did you mean 'latte'"):
        resize_frames(noise(1, 16, 20), 16, 16, "late")
