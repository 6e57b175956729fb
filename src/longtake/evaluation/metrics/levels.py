"""Pixels as the metrics want them. Clips come as (B, C, T, H, W), uint8 or float in [-1, 1]."""

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.video import to_uint8


def check_clips(pixels: Tensor, name: str = "clips", frames: int = 1) -> Tensor:
    """Return `pixels` unchanged.

    Raises:
        BadInput: another rank or type, something empty, fewer than `frames` frames, or pixels that are not numbers.
    """
    if pixels.ndim != 5 or 0 in pixels.shape:
        raise BadInput(f"{name} have shape (batch, channels, frames, height, width); these are {tuple(pixels.shape)}.")
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise BadInput(f"{name} are {pixels.dtype}; use uint8, or floats in [-1, 1].")
    if pixels.shape[2] < frames:
        raise BadInput(f"{name} have {pixels.shape[2]} frames; this metric needs at least {frames}.")
    if pixels.is_floating_point() and not pixels.isfinite().all():
        raise BadInput(f"{name} hold pixels that are not finite; look at the sampler that made them.")
    return pixels


def check_alike(x: Tensor, y: Tensor) -> None:
    """Raise BadInput unless both are clips of one shape."""
    check_clips(x, "the first clips")
    check_clips(y, "the second clips")
    if x.shape != y.shape:
        raise BadInput(
            f"clips of shape {tuple(x.shape)} and {tuple(y.shape)} cannot be compared pixel by pixel; "
            "bring both to one size and length."
        )


def unit_levels(pixels: Tensor) -> Tensor:
    """Return float64 of the same shape, black 0 and white 1; floats outside [-1, 1] are clamped."""
    if pixels.dtype == torch.uint8:
        return pixels.double() / 255
    return pixels.double().add(1).div(2).clamp(0, 1)


def byte_levels(pixels: Tensor) -> Tensor:
    """Return uint8 (B, C, T, H, W); floats are rounded as when they are written to a file."""
    return pixels if pixels.dtype == torch.uint8 else to_uint8(pixels).movedim(-1, -4)
