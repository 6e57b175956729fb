"""Whether a clip stays what it was: consistency of frame features, and how anything drifts from window to window.

Features are (..., T, D), one row per frame, of any network or of none; the leading axes are clips. VBench's subject
consistency is `frame_consistency` of DINO ViT-B/16 features and its background consistency that of CLIP ViT-B/32; with
other features the result carries their name (subject_consistency@...).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from longtake.errors import BadInput

WINDOW = 4
"""Frames of a window where nobody says how many."""


def frame_consistency(features: Tensor) -> Tensor:
    """VBench's consistency: mean over frames t >= 1 of (max(0, cos(f_t, f_(t-1))) + max(0, cos(f_t, f_0))) / 2.

    Args:
        features: (..., T, D).

    Returns:
        (...) float64 in [0, 1], 1 where all frames have one direction. A set's score is the mean over clips, weighted by
        T - 1 in VBench (the same for clips of one length).
    """
    f = _check(features, 2)
    return _consistency(f[..., 1:, :], f[..., :-1, :], f[..., :1, :])


def window_consistency(features: Tensor, window: int, stride: int | None = None, *, anchor: str = "clip") -> Tensor:
    """The same formula over the frames of each window: (..., W).

    Args:
        features: (..., T, D). window, stride: see `window_starts`; windows of 2 frames or more.
        anchor: what frames are compared with besides the one before them: "clip", the first frame of the clip, which
            shows drift away from it; or "window", the first of the window, which shows consistency within it.
    """
    f = _check(features, 2)
    if anchor not in ("clip", "window"):
        raise BadInput(f"anchor {anchor!r} of consistency; use 'clip' or 'window'.")
    if window < 2:
        raise BadInput(f"windows of {window} frames; consistency needs 2 or more.")
    found = []
    for start in window_starts(f.shape[-2], window, stride):
        part = f[..., start : start + window, :]
        first = f[..., :1, :] if anchor == "clip" else part[..., :1, :]
        found.append(_consistency(part[..., 1:, :], part[..., :-1, :], first))
    return torch.stack(found, -1)


def drift(features: Tensor, window: int | None = None, stride: int | None = None) -> Tensor:
    """Cosine distance of each window's mean feature from the first window's: (..., W) in [0, 2], 0 at first.

    Args:
        features: (..., T, D). window: frames; WINDOW if None, or half of a shorter clip, so that there are always two.
        stride: see `window_starts`.
    """
    f = _check(features, 2)
    window = min(WINDOW, f.shape[-2] // 2) if window is None else window
    means = torch.stack([f[..., s : s + window, :].mean(-2) for s in window_starts(f.shape[-2], window, stride)], -2)
    distance = (1 - cosine_similarity(means, means[..., :1, :], dim=-1)).clamp(0, 2)
    distance[..., 0] = 0
    return distance


def drift_curve(values: Tensor, window: int, stride: int | None = None) -> Tensor:
    """Mean of per-frame values (..., T), such as saturation or PSNR, over each window: (..., W) float64."""
    starts = window_starts(values.shape[-1], window, stride)
    return torch.stack([values[..., start : start + window].double().mean(-1) for start in starts], -1)


def statistic_curve(
    clips: Tensor,
    statistic: Callable[[Tensor], Tensor | float],
    window: int,
    stride: int | None = None,
    *,
    dim: int = 1,
) -> Tensor:
    """Any statistic of a set of clips, window by window: (W, ...) float64.

    For example the Fréchet distance of the frames' features (N, T, D) in each window to those of real frames:
    `statistic_curve(features, lambda f: frechet_distance(Moments.of(f.flatten(0, 1)), real), 16)`.

    Args:
        clips: time along axis `dim`: 1 for features (N, T, D), 2 for pixels (B, C, T, H, W).
    """
    starts = window_starts(clips.shape[dim], window, stride)
    found = [statistic(clips.narrow(dim, start, window)) for start in starts]
    return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in found])


def drift_slope(curve: Tensor) -> Tensor:
    """Slope per window of the straight line through each curve (..., W), by least squares: (...)."""
    if curve.shape[-1] < 2:
        raise BadInput(f"a slope of {curve.shape[-1]} windows; at least 2 are needed.")
    place = torch.arange(curve.shape[-1], dtype=torch.float64, device=curve.device)
    place = place - place.mean()
    return (curve.double() * place).sum(-1) / place.square().sum()


def window_starts(frames: int, window: int, stride: int | None = None) -> list[int]:
    """First frames of the whole windows of `frames`, `stride` apart (`window`, without overlap, if None).

    Frames after the last whole window are left out. BadInput where not even one fits.
    """
    stride = window if stride is None else stride
    if not 1 <= window <= frames or stride < 1:
        raise BadInput(f"windows of {window} frames every {stride} in clips of {frames}; use 1 to {frames} frames.")
    return list(range(0, frames - window + 1, stride))


def _consistency(frames: Tensor, before: Tensor, first: Tensor) -> Tensor:
    near, far = cosine_similarity(frames, before, dim=-1), cosine_similarity(frames, first, dim=-1)
    return ((near.clamp(0, 1) + far.clamp(0, 1)) / 2).mean(-1)


def _check(features: Tensor, frames: int) -> Tensor:
    if features.ndim < 2 or features.shape[-1] == 0 or features.shape[-2] < frames:
        raise BadInput(
            f"features {tuple(features.shape)}; they must be (..., frames, width) of {frames} frames or more."
        )
    if not features.isfinite().all():
        raise BadInput("features of some frames are not finite; check those clips and the feature network.")
    return features.detach().double()
