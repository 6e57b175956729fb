"""From decoded frames to pixels of one size, in the way of each source. uint8 (T, H, W, 3) -> float (3, T, h, w).

========== ==================================================================================================
ours       antialiased bicubic, so that the picture just covers the target, then centre crop
latte      Latte on UCF-101 and FaceForensics: bilinear without antialias by h / min(H, W), then centre crop
latte-sky  Latte on SkyTimelapse: centre crop to a square, then bilinear without antialias
as-is      Latte on Taichi-HD: frames have the size already
tats       TATS on videos: bilinear without antialias, short side to h and the other rounded up, then centre crop
tats-image TATS on frame folders: centre crop to a square, then Lanczos on bytes (Pillow)
========== ==================================================================================================

All give [-1, 1]; TATS itself uses [-0.5, 0.5], which is half of it. Crop offsets are rounded as each source rounds them:
half to even in Latte, down in TATS and in ours.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from longtake.errors import BadVideo, UnknownName, nearest


def resize_frames(frames: Tensor, height: int, width: int, way: str = "ours") -> Tensor:
    """Bring frames to a size.

    Args:
        frames: uint8 (T, H, W, 3). way: one of `WAYS`; all but "ours" and "as-is" want height == width.

    Returns:
        float32 (3, T, height, width) in [-1, 1], contiguous.

    Raises:
        BadVideo: "as-is" with frames of another size. UnknownName: no such way.
    """
    if way not in WAYS:
        raise UnknownName(f"Unknown resize '{way}'.{nearest(way, WAYS)}")
    return WAYS[way](frames, height, width)


def _ours(frames: Tensor, height: int, width: int) -> Tensor:
    rows, columns = frames.shape[1:3]
    scale = max(height / rows, width / columns)
    size = max(height, round(rows * scale)), max(width, round(columns * scale))
    pixels = frames.permute(0, 3, 1, 2)  # a view: channels stay last, as the fast byte kernel wants them
    if size != (rows, columns):
        # On bytes: twenty times faster than on floats and one or two levels (2/255) from them, more only where bicubic
        # overshoots black or white between its two passes.
        pixels = interpolate(pixels, size=size, mode="bicubic", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return _from_bytes(pixels[..., top : top + height, left : left + width])


def _latte(frames: Tensor, height: int, width: int) -> Tensor:
    rows, columns = frames.shape[1:3]
    scale = height / min(rows, columns)
    if math.floor(min(rows, columns) * scale) < height:  # the quotient was rounded down: the crop would not fit
        scale = math.nextafter(scale, math.inf)
    pixels = interpolate(_unit(frames), scale_factor=scale, mode="bilinear", align_corners=False)
    return _to_clip(_round_crop(pixels, height, width))


def _latte_sky(frames: Tensor, height: int, width: int) -> Tensor:
    pixels = _unit(frames)
    side = min(pixels.shape[-2:])
    pixels = _round_crop(pixels, side, side)
    return _to_clip(interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False))


def _as_is(frames: Tensor, height: int, width: int) -> Tensor:
    rows, columns = frames.shape[1:3]
    if (rows, columns) != (height, width):
        raise BadVideo(f"frames are {columns}x{rows} and this preset takes {width}x{height} as they are: resize them.")
    return _from_bytes(frames.permute(0, 3, 1, 2))


def _tats(frames: Tensor, height: int, width: int) -> Tensor:
    rows, columns = frames.shape[1:3]
    scale = height / min(rows, columns)
    size = (height, math.ceil(columns * scale)) if rows < columns else (math.ceil(rows * scale), width)
    pixels = interpolate(_unit(frames), size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return _to_clip(pixels[..., top : top + height, left : left + width])


def _tats_image(frames: Tensor, height: int, width: int) -> Tensor:
    rows, columns = frames.shape[1:3]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    pictures = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
        for frame in frames[:, top : top + side, left : left + side].contiguous().numpy()
    ]
    return _from_bytes(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


WAYS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "ours": _ours,
    "latte": _latte,
    "latte-sky": _latte_sky,
    "as-is": _as_is,
    "tats": _tats,
    "tats-image": _tats_image,
}


def _unit(frames: Tensor) -> Tensor:
    """uint8 (T, H, W, 3) -> float (T, 3, H, W) in [0, 1]."""
    return frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _to_clip(pixels: Tensor) -> Tensor:
    """(T, 3, h, w) in [0, 1] -> (3, T, h, w) in [-1, 1]."""
    return pixels.transpose(0, 1).contiguous().sub_(0.5).div_(0.5)


def _from_bytes(pixels: Tensor) -> Tensor:
    """(T, 3, h, w) uint8 -> (3, T, h, w) float in [-1, 1]."""
    return pixels.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


def _round_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    top, left = round((pixels.shape[-2] - height) / 2), round((pixels.shape[-1] - width) / 2)
    return pixels[..., top : top + height, left : left + width]
