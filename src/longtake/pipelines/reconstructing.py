"""A video through a tokenizer and back, streamed: what the tokenizer loses, without any generator."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from longtake.data.resize import resize_frames
from longtake.errors import BadInput, BadVideo
from longtake.pipelines.records import check_output
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.video import Clip, VideoReader, write_clip


@dataclass(frozen=True)
class RoundTrip:
    """How a video came back.

    Attributes:
        psnr: dB over all pixels of all frames, from the mean squared error on a scale of 0 to 1.
        worst: dB of the worst frame.
        frames, height, width: of what went through.
        note: what was cut off or resized to fit the tokenizer, "" when nothing was.
        seconds: wall time of reading, encoding and decoding.
        latents_per_pixel: numbers that the tokenizer keeps, per number that came in.
    """

    psnr: float
    worst: float
    frames: int
    height: int
    width: int
    note: str
    seconds: float
    latents_per_pixel: float


@torch.no_grad()
def reconstruct(
    file: str | Path,
    tokenizer: CausalVAE,
    *,
    out: str | Path | None = None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    on_frames: Callable[[int, int], None] | None = None,
) -> RoundTrip:
    """Encode and decode a video a few frames at a time, and measure the difference.

    Args:
        file: any video that can be read.
        out: writes the decoded clip here (that one is held in memory whole, in half precision).
        frames: at most so many from the start; None is all.
        size: (height, width) to resize and crop to first; None is the file's own.
        on_frames: called as on_frames(done, total).

    Frame count, height and width are lowered to the nearest that the tokenizer takes, and the note says so.

    Raises:
        BadVideo: not a video, or smaller than the tokenizer's stride. BadInput: frames or size below 1. BadOutput.
    """
    if (frames is not None and frames < 1) or (size is not None and min(size) < 1):
        raise BadInput(f"frames is {frames} and size is {size}: expected numbers above 0")
    time_stride, row_stride, column_stride = tokenizer.stride
    device = next(tokenizer.parameters()).device
    with VideoReader(file) as reader:
        asked = min(reader.frame_count, frames or reader.frame_count)
        rows, columns = size or (reader.height, reader.width)
        count = 1 + (asked - 1) // time_stride * time_stride
        height, width = rows // row_stride * row_stride, columns // column_stride * column_stride
        if not height or not width:
            raise BadVideo(f"{file} is {columns}x{rows}: the tokenizer takes {column_stride}x{row_stride} and larger")
        if out is not None:
            check_output(out, frames=count, height=height, width=width)

        groups: list[Tensor] = []
        start = time.perf_counter()

        def read() -> Iterator[Tensor]:
            for first in range(0, count, time_stride):
                numbers = range(first, min(first + time_stride, count))
                groups.append(resize_frames(reader.frames(numbers), height, width)[None])
                yield groups[-1].to(device)

        errors: list[float] = []
        kept: list[Tensor] = []
        waiting = torch.empty(1, 3, 0, height, width)
        for decoded in tokenizer.decode_stream(tokenizer.encode_stream(read())):
            waiting = torch.cat([waiting, *groups], dim=2)
            groups.clear()
            original, waiting = waiting.split([decoded.shape[2], waiting.shape[2] - decoded.shape[2]], dim=2)
            errors += ((decoded.cpu() - original) / 2).square().mean(dim=(0, 1, 3, 4)).tolist()
            if out is not None:
                kept.append(decoded.half().cpu())
            if on_frames is not None:
                on_frames(len(errors), count)
        seconds = time.perf_counter() - start
        if out is not None:
            write_clip(Clip(torch.cat(kept, dim=2), reader.fps), out)
        before = (reader.frame_count if frames is None else asked, reader.height, reader.width)
    latent = math.prod(tokenizer.latent_shape(count, height, width)) * tokenizer.config.latent_channels
    return RoundTrip(
        psnr=_decibels(sum(errors) / len(errors)),
        worst=_decibels(max(errors)),
        frames=count,
        height=height,
        width=width,
        note=_note(before, (count, height, width)),
        seconds=seconds,
        latents_per_pixel=latent / (3 * count * height * width),
    )


def _note(before: tuple[int, int, int], after: tuple[int, int, int]) -> str:
    notes = []
    if before[0] != after[0]:
        notes.append(f"the first {after[0]} of {before[0]} frames")
    if before[1:] != after[1:]:
        notes.append(f"resized and cropped from {before[2]}x{before[1]} to {after[2]}x{after[1]}")
    return ", ".join(notes)


def _decibels(error: float) -> float:
    """PSNR of a mean squared error on a scale of 0 to 1; infinite for none."""
    return math.inf if error == 0 else -10 * math.log10(error)
