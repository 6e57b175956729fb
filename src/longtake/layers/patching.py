"""Clips to tokens and back: non-overlapping patches, frame-major, then row, then column."""

from torch import Tensor


def patchify(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """(B, C, T, H, W) -> (B, T/t * H/h * W/w, C*t*h*w); features run channel, then (t, h, w) inside the patch.

    Raises ValueError when the patch does not divide the clip.
    """
    b, c, *size = x.shape
    if any(n % p for n, p in zip(size, patch, strict=True)):
        raise ValueError(f"a clip of {tuple(size)} cannot be cut into patches of {patch}; each size must be a multiple")
    t, h, w = (n // p for n, p in zip(size, patch, strict=True))
    x = x.reshape(b, c, t, patch[0], h, patch[1], w, patch[2])
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, t * h * w, -1)


def unpatchify(tokens: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Inverse of `patchify`: (B, N, C*t*h*w) of a token grid -> (B, C, T, H, W)."""
    x = tokens.reshape(tokens.shape[0], *grid, -1, *patch)
    t, h, w = (n * p for n, p in zip(grid, patch, strict=True))
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(tokens.shape[0], -1, t, h, w)
