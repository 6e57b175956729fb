"""How far a clip is from its dense partner of the same prompt and seed, and how far a row is from what it was asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.comparison.runs import Kept
from longtake.data.scenes import Scene, render_scenes
from longtake.evaluation.metrics.frechet import Moments
from longtake.evaluation.metrics.reference import CEILING, psnr_frames, ssim_frames
from longtake.evaluation.networks import FeatureNetwork
from longtake.evaluation.readback import ReadBackDetector, Score, score_readings
from longtake.video import from_uint8, to_uint8

FRAMES_AT_ONCE = 8
"""Of a pair, so that long clips take no more memory than short ones."""
CLIPS_AT_ONCE = 8
SMALLEST = 11
"""Pixels of SSIM's windows."""


@dataclass(frozen=True)
class Likeness:
    """A clip against its dense partner.

    Attributes:
        psnr: dB, mean over frames, of which each counts for 100 at most. ssim: mean over frames; None where a side is
            under 11 pixels. latent_error: |z - z_dense| / |z_dense|, 0 for the same latents.
        identical: every byte of every frame is the same.
    """

    psnr: float
    ssim: float | None
    latent_error: float | None
    identical: bool


def likeness(clip: Kept, dense: Kept) -> Likeness:
    """Compare a clip with its dense partner. Raises BadInput when they differ in size."""
    mine, theirs = (one.pixels().movedim(-1, 0)[None] for one in (clip, dense))
    small = min(mine.shape[-2:]) < SMALLEST
    psnr, ssim = [], []
    for x, y in zip(mine.split(FRAMES_AT_ONCE, 2), theirs.split(FRAMES_AT_ONCE, 2), strict=True):
        psnr.append(psnr_frames(x, y).clamp_max(CEILING))
        ssim += [] if small else [ssim_frames(x, y)]
    return Likeness(
        float(torch.cat(psnr, 1).mean()),
        float(torch.cat(ssim, 1).mean()) if ssim else None,
        latent_error(clip.latents(), dense.latents()),
        torch.equal(mine, theirs),
    )


def latent_error(found: Tensor, dense: Tensor) -> float | None:
    """|z - z_dense| / |z_dense| over all of a clip; None where the shapes differ."""
    if found.shape != dense.shape:
        return None
    return float((found.double() - dense.double()).norm() / dense.double().norm().clamp_min(1e-12))


@dataclass(frozen=True)
class Look:
    """What the networks saw of a set of clips: `score` of read-back; `moments` of features, None without a network."""

    score: Score
    moments: Moments | None


def look(
    batches: Iterable[tuple[Tensor, Sequence[Scene]]], detector: ReadBackDetector, network: FeatureNetwork | None
) -> Look:
    """Show clips to the networks, a batch at a time.

    Args:
        batches: clips uint8 (B, 3, T, H, W), and the scenes that they should show.
        detector: that reads scenes. network: that makes features, or None.
    """
    moments = None if network is None else Moments.empty(network.width)
    readings, asked = [], []
    for pixels, scenes in batches:
        if network is not None and moments is not None:
            moments.add(network(pixels))
        attributes = [scene.attributes for scene in scenes]
        floats = from_uint8(pixels.movedim(1, -1)).to(detector.device)
        readings += detector.read(floats, [len(one["objects"]) for one in attributes])
        asked += attributes
    return Look(score_readings(readings, asked), moments)


def kept_batches(clips: Sequence[Kept], scenes: Sequence[Scene]) -> Iterable[tuple[Tensor, Sequence[Scene]]]:
    """Clips that were made, as `look` wants them; one scene for each."""
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        part = slice(start, start + CLIPS_AT_ONCE)
        yield torch.stack([one.pixels().movedim(-1, 0) for one in clips[part]]), scenes[part]


def render_batches(
    scenes: Sequence[Scene], frames: int, height: int, width: int, fps: float
) -> Iterable[tuple[Tensor, Sequence[Scene]]]:
    """Renders of scenes, as `look` wants them."""
    for start in range(0, len(scenes), CLIPS_AT_ONCE):
        part = scenes[start : start + CLIPS_AT_ONCE]
        yield to_uint8(render_scenes(part, frames, height, width, fps=fps)).movedim(-1, 1), part
