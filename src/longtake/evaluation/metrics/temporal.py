"""Metrics of time within a clip: flicker, warping error, motion, smoothness, seams and cuts. No reference is needed.

Clips are (B, C, T, H, W), uint8 or float in [-1, 1]; flows are (B, 2, T-1, H, W) in pixels as `longtake.video.flow`
gives them; results are (B,). VBench's formulas (arXiv 2311.17982, and its code where the paper is silent) with another
network in them carry its name: never print DYNAMIC_DEGREE or MOTION_SMOOTHNESS as VBench's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from longtake.errors import BadInput, UnknownName, nearest
from longtake.evaluation.metrics.levels import byte_levels, check_clips, unit_levels
from longtake.video.flow import estimate_flow, visible, warp

DYNAMIC_DEGREE = "dynamic_degree@flow"
MOTION_SMOOTHNESS = {"blend": "motion_smoothness@blend", "flow": "motion_smoothness@flow"}


def frame_differences(pixels: Tensor) -> Tensor:
    """Mean absolute difference of each two successive frames over pixels and colours, in levels of 0 to 255: (B, T-1)."""
    levels = 255 * unit_levels(check_clips(pixels, frames=2))
    return (levels[:, :, 1:] - levels[:, :, :-1]).abs().mean((1, 3, 4))


def flicker(pixels: Tensor) -> Tensor:
    """VBench's temporal flickering, exactly: 1 - mean |x_(t+1) - x_t| / 255 on bytes, (B,) in [0, 1]; 1 does not flicker.

    It counts motion as flicker; VBench applies it to prompts of still scenes only.
    """
    return 1 - frame_differences(byte_levels(check_clips(pixels, frames=2))).mean(1) / 255


def warping_error(
    pixels: Tensor, flow: Tensor, backward: Tensor | None = None, *, seen: Tensor | None = None
) -> Tensor:
    """What flow does not explain of the change from frame to frame, (B,): 0 or more, in squared levels of [0, 1].

    Mean over pairs of sum M (x_t - warp(x_(t+1)))^2 / sum M, the mean over colours (Lai et al., arXiv 1808.00449, and
    their code); M masks what the next frame hides, and a pair with nothing visible counts 0. Blur and stillness lower it:
    read it beside sharpness and motion.

    Args:
        flow: of each frame to the next. backward: of each frame t + 1 to t; M is then the forward-backward check.
        seen: M itself, bool (B, T-1, H, W), such as `Truth.covisible`; without either all pixels count.

    Raises:
        BadInput: flows of another size than the clips', or both `backward` and `seen`.
    """
    _check_flow(pixels, flow)
    if backward is not None and seen is not None:
        raise BadInput("warping error with both a backward flow and a mask; give one of them.")
    levels = unit_levels(pixels).transpose(1, 2)  # (B, T, C, H, W)
    forward = _pairs(flow)
    if backward is not None:
        _check_flow(pixels, backward)
        mask = visible(forward, _pairs(backward))
    elif seen is not None:
        mask = seen.flatten(0, 1)
    else:
        mask = torch.ones_like(forward[:, 0])
    fetched = warp(levels[:, 1:].flatten(0, 1), forward.double())
    error = (levels[:, :-1].flatten(0, 1) - fetched).square().mean(1)
    mask = mask.double()
    each = (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)
    return each.view(len(pixels), -1).mean(1)


def motion_magnitude(flow: Tensor, *, normalised: bool = False) -> Tensor:
    """Mean length of the flow in pixels per frame, (B,); `normalised` to a picture whose short side is 256 pixels."""
    length = flow.double().norm(dim=1).mean((1, 2, 3))
    return length * (256 / min(flow.shape[-2:])) if normalised else length


def at_eight_fps(pixels: Tensor, fps: float) -> Tensor:
    """Every max(1, round(fps / 8))-th frame, as VBench takes them for the dynamic degree."""
    if not fps > 0:
        raise BadInput(f"fps is {fps}; it must be above zero.")
    return pixels[:, :, :: max(1, round(fps / 8))]


def dynamic_degree(flow: Tensor, *, fps: float = 8.0) -> Tensor:
    """VBench's rule for whether a clip moves, on our flow (DYNAMIC_DEGREE): bool (B,); a set's score is the mean.

    True if in at least round(T / 4) pairs the mean of the longest 5 % of flows exceeds 6 px * short side / 256, and
    8 / fps times as much below 8 frames per second. At least one pair must (VBench's code lets clips of 2 frames pass).

    Args:
        flow: between the frames of `at_eight_fps`. fps: of the clip that they were taken from.
    """
    longest = flow.double().norm(dim=1).flatten(2).sort(descending=True).values  # (B, T-1, HW)
    top = longest[..., : max(1, int(longest.shape[-1] * 0.05))].mean(2)
    limit = max(1.0, 8 / fps) * 6 * min(flow.shape[-2:]) / 256
    return (top > limit).sum(1) >= max(1, round((flow.shape[2] + 1) / 4))


def motion_smoothness(pixels: Tensor, *, interpolate: str = "flow") -> Tensor:
    """VBench's motion smoothness with a classical interpolator (MOTION_SMOOTHNESS[interpolate]): (B,) in [0, 1].

    Every odd frame with two neighbours is left out and rebuilt from them; 1 - mean |rebuilt - x| / 255 on bytes.

    Args:
        interpolate: "blend", the mean of both neighbours; or "flow", the mean of both warped half way, by flows in both
            directions combined as in Super SloMo (arXiv 1712.00080, eq. 4).

    Raises:
        BadInput: fewer than 3 frames. UnknownName: another interpolator.
    """
    if interpolate not in MOTION_SMOOTHNESS:
        raise UnknownName(f"Unknown interpolator '{interpolate}'.{nearest(interpolate, MOTION_SMOOTHNESS)}")
    levels = byte_levels(check_clips(pixels, frames=3))
    if levels.shape[2] % 2 == 0:
        levels = levels[:, :, :-1]
    kept = levels[:, :, ::2].transpose(1, 2)
    before, after = kept[:, :-1].flatten(0, 1), kept[:, 1:].flatten(0, 1)  # (B P, C, H, W)
    ends = before.float(), after.float()
    if interpolate == "flow":
        half = (estimate_flow(before, after) - estimate_flow(after, before)) / 4
        ends = warp(ends[0], -half), warp(ends[1], half)
    rebuilt = ((ends[0] + ends[1]) / 2).round().double()
    odd = levels[:, :, 1::2].transpose(1, 2).flatten(0, 1).double()
    return 1 - (rebuilt - odd).abs().mean((1, 2, 3)).view(len(levels), -1).mean(1) / 255


def seam_ratio(pixels: Tensor, seams: Sequence[int]) -> Tensor:
    """Mean frame difference across seams over that between all other frames, (B,): 1 where seams do not show.

    Args:
        seams: first frames of the pieces that a clip was made of, but its own: 1 to T-1 each.

    Returns:
        0 or more; infinite where a clip changes at seams only, 1 where it does not change at all.

    Raises:
        BadInput: no seams, one outside the clip, or no other pair of frames to compare with.
    """
    differences = frame_differences(pixels)
    pairs = differences.shape[1]
    wrong = [seam for seam in seams if not 1 <= seam <= pairs]
    if wrong or not seams:
        raise BadInput(
            f"seams {list(seams)} of clips of {pairs + 1} frames; give first frames of pieces, 1 to {pairs}."
        )
    at = torch.zeros(pairs, dtype=torch.bool, device=differences.device)
    at[[seam - 1 for seam in seams]] = True
    if at.all():
        raise BadInput(f"all {pairs} pairs of frames are seams; there is nothing to compare them with.")
    across, inside = differences[:, at].mean(1), differences[:, ~at].mean(1)
    return torch.where((across == 0) & (inside == 0), 1.0, across / inside)


def find_cuts(pixels: Tensor, *, least: float = 8.0, ratio: float = 3.0, reach: int = 4) -> Tensor:
    """Where a clip jumps to another picture: bool (B, T-1), True between the last frame and the first.

    A cut is a difference of `least` levels of 255 or more that is also `ratio` times the median difference of the pairs
    up to `reach` before and after it. The number of cuts of clips is `.sum(1)`. On 80 clips of two scenes of 17 frames
    it found every cut, and took 7 of 1,280 pairs of frames of uncut ones, where motion starts abruptly, for one.
    """
    differences = frame_differences(pixels)
    padded = torch.nn.functional.pad(differences, (reach, reach), value=torch.nan)
    around = padded.unfold(1, 2 * reach + 1, 1).clone()  # (B, T-1, 2 reach + 1)
    around[..., reach] = torch.nan
    usual = around.nanmedian(2).values.nan_to_num(0.0)
    return (differences >= least) & (differences >= ratio * usual)


def _pairs(flow: Tensor) -> Tensor:
    """(B, 2, T-1, H, W) -> (B (T-1), 2, H, W)."""
    return flow.transpose(1, 2).flatten(0, 1)


def _check_flow(pixels: Tensor, flow: Tensor) -> None:
    check_clips(pixels, frames=2)
    batch, _, frames, height, width = pixels.shape
    if flow.shape != (batch, 2, frames - 1, height, width):
        raise BadInput(
            f"flow {tuple(flow.shape)} for clips {tuple(pixels.shape)}; it must be "
            f"{(batch, 2, frames - 1, height, width)}, as clip_flow gives it."
        )
