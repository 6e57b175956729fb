"""Frames that a user gives: pictures and clips from files, Pillow images or tensors, brought to the size of the run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtake.data.resize import resize_frames
from longtake.errors import BadInput
from longtake.pipelines.records import Source, file_hash
from longtake.video import Clip, VideoReader, from_uint8, read_image, to_uint8

Picture = str | Path | Image.Image | Tensor
"""A file, a Pillow image, or a tensor (3, H, W) in [-1, 1]."""

Film = str | Path | Clip | Tensor
"""A video file, a Clip, or a tensor (3, T, H, W) in [-1, 1] at the pipeline's own frame rate."""


@dataclass(frozen=True)
class Given:
    """Given frames: `pixels` (1, 3, T, H, W) in [-1, 1], where they came from, and what was changed about them."""

    pixels: Tensor
    source: Source
    notes: tuple[str, ...] = ()


def given_picture(picture: Picture, height: int, width: int, *, name: str = "image") -> Given:
    """Read one picture as a clip of one frame of `height` x `width`.

    Another size is resized so that it just covers the target, then cropped in the middle, and noted. Raises BadImage
    for a file that is no image, BadInput for a tensor of another shape or range.
    """
    if isinstance(picture, str | Path):
        pixels, source = read_image(picture)[:, None], Source(str(Path(picture).absolute()), file_hash(picture))
    else:
        if isinstance(picture, Image.Image):
            picture = from_uint8(torch.from_numpy(np.array(picture.convert("RGB")))[None])[:, 0]
        pixels = _checked(picture, 3, name, "(3, height, width)")[:, None]
        source = Source(None, _pixel_hash(pixels))
    return _fitted(pixels, source, height, width, name)


def given_ending(film: Film, frames: int, height: int, width: int, *, fps: float, name: str = "continue_from") -> Given:
    """Read the last `frames` frames of a clip, at `fps` frames per second counted back from its last frame.

    Raises BadVideo for a file that is no video, BadInput for one that is shorter than that.
    """
    if isinstance(film, str | Path):
        with VideoReader(film) as reader:
            chosen = _ending(reader.timestamps, frames, fps, f"{name} '{film}'")
            pixels = from_uint8(reader.frames(chosen))
        source = Source(str(Path(film).absolute()), file_hash(film))
    else:
        clip = (
            film if isinstance(film, Clip) else Clip(_checked(film, 4, name, "(3, frames, height, width)")[None], fps)
        )
        if clip.pixels.shape[0] != 1:
            raise BadInput(f"{name} holds {clip.pixels.shape[0]} clips: expected one")
        seconds = clip.times or tuple(i / clip.fps for i in range(clip.frames))
        chosen = _ending(seconds, frames, fps, name)
        pixels = clip.pixels[0, :, chosen].float()
        source = Source(None, _pixel_hash(pixels))
    return _fitted(pixels, source, height, width, name)


def _ending(seconds: tuple[float, ...], frames: int, fps: float, name: str) -> list[int]:
    """Frame numbers nearest to the moments (frames - 1)/fps, ..., 0 before the last frame."""
    times = np.asarray(seconds)
    wanted = times[-1] - np.arange(frames - 1, -1, -1) / fps
    if wanted[0] < -0.5 / fps:
        raise BadInput(
            f"{name} is too short: it lasts {times[-1] + 1 / fps:.2f} s, and its last {frames} frames at {fps:g} frames "
            f"per second ({frames / fps:.2f} s) are continued; give a longer clip"
        )
    return [int(np.abs(times - moment).argmin()) for moment in wanted]


def _checked(pixels: Tensor, rank: int, name: str, shape: str) -> Tensor:
    if not isinstance(pixels, Tensor) or pixels.ndim != rank or pixels.shape[0] != 3 or 0 in pixels.shape:
        found = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
        raise BadInput(f"{name} is {found}: expected a file or a tensor {shape}")
    pixels = pixels.detach().float().cpu()
    if not pixels.isfinite().all() or pixels.abs().max() > 1.001:
        raise BadInput(f"{name} has values outside [-1, 1]: -1 is black and 1 is white")
    return pixels


def _fitted(pixels: Tensor, source: Source, height: int, width: int, name: str) -> Given:
    rows, columns = pixels.shape[-2:]
    if (rows, columns) == (height, width):
        return Given(pixels[None], source)
    note = f"{name} of {columns}x{rows} was resized and cropped to {width}x{height}"
    return Given(resize_frames(to_uint8(pixels), height, width)[None], source, (note,))


def _pixel_hash(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.float().cpu().contiguous().numpy().tobytes()).hexdigest()
