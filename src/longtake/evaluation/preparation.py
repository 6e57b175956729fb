"""From decoded frames to what the networks see, as a side of a protocol says: compress, crop, resize, round, compress."""

import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from longtake.evaluation.protocol import Side
from longtake.video import Clip, VideoReader, from_uint8, write_clip

MP4_FPS = 8.0
"""Rate written into the passing .mp4; constant quality does not depend on it."""


def prepare(frames: Tensor, side: Side, *, mirrored: bool = False, mp4: bool = False, jpeg: bool = False) -> Tensor:
    """Bring the frames of one clip to what a protocol compares.

    Args:
        frames: uint8 (T, H, W, 3). side: of the protocol. mirrored: turn left and right around, last of all.
        mp4, jpeg: the frames come from an .mp4 or from JPEG files, so that compression is behind them already.

    Returns:
        uint8 (3, T, h, w), contiguous.
    """
    if side.mp4 is not None and not mp4:
        frames = through_mp4(frames, side.mp4)
    if side.size is not None:
        frames = _resize(frames, side)
    if side.jpeg is not None and not jpeg:
        frames = through_jpeg(frames, side.jpeg)
    if mirrored:
        frames = frames.flip(2)
    return frames.permute(3, 0, 1, 2).contiguous()


def to_bytes(levels: Tensor, rounding: str) -> Tensor:
    """Floats in [0, 255] -> uint8, rounded to nearest (half to even) or cut off, values outside clamped."""
    levels = levels.clamp(0, 255)
    return (levels.round() if rounding == "nearest" else levels.floor()).to(torch.uint8)


def through_jpeg(frames: Tensor, quality: int) -> Tensor:
    """Save each frame as Pillow saves a JPEG (4:2:0) and read it again: uint8 (T, H, W, 3) -> the same."""
    out = []
    for frame in frames.numpy():
        buffer = BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(buffer).convert("RGB")))
    return torch.from_numpy(np.stack(out))


def through_mp4(frames: Tensor, crf: int) -> Tensor:
    """Send a clip through H.264 (4:2:0) and read it again: uint8 (T, H, W, 3) -> the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(Clip(from_uint8(frames)[None], MP4_FPS), path, crf=crf)
        with VideoReader(path, threads=1) as reader:
            read = reader.frames(range(len(frames)))
    return read[:, : frames.shape[1], : frames.shape[2]]  # odd sides grow by one


def _resize(frames: Tensor, side: Side) -> Tensor:
    """(T, H, W, 3) -> (T, h, w, 3), both uint8."""
    assert side.size is not None
    height, width = side.size
    if side.crop == "square":
        shortest = min(frames.shape[1:3])
        frames = _centre(frames, shortest, shortest)
    rows, columns = frames.shape[1:3]
    size = (height, width)
    if side.crop != "none":  # just cover the target, crop the rest
        scale = max(height / rows, width / columns)
        size = max(height, round(rows * scale)), max(width, round(columns * scale))
    return _centre(_filtered(frames, size, side), height, width)


def _filtered(frames: Tensor, size: tuple[int, int], side: Side) -> Tensor:
    if tuple(frames.shape[1:3]) == size:
        return frames
    if side.resize == "lanczos":  # Pillow works on bytes, rounds to nearest and always filters
        pictures = [
            np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.LANCZOS))
            for frame in frames.contiguous().numpy()
        ]
        return torch.from_numpy(np.stack(pictures))
    pixels = frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    pixels = interpolate(pixels, size=size, mode=side.resize, antialias=side.antialias, align_corners=False)
    return to_bytes(pixels, side.rounding).permute(0, 2, 3, 1)


def _centre(frames: Tensor, height: int, width: int) -> Tensor:
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]
