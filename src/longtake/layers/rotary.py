"""Rotary positions on three axes: each axis turns its own share of the pairs of every attention head (RoFormer, arXiv
2104.09864; split over time, height and width as in Wan, arXiv 2503.20314)."""

import torch
from torch import Tensor


def split_head(head_dim: int) -> tuple[int, int, int]:
    """Return how many of a head's features turn with time, height and width: d - 4*floor(d/6), 2*floor(d/6) twice.

    The three are even and sum to `head_dim` (128 -> 44, 42, 42). Raises ValueError when `head_dim` is odd.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim {head_dim} is odd; rotary positions turn pairs of features, so it must be even")
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def rotary_table(
    grid: tuple[int, int, int],
    head_dim: int,
    *,
    extra: int = 0,
    theta: float = 1e4,
    device: torch.device | str | None = None,
) -> Tensor:
    """Unit complex numbers by which the feature pairs of each token are turned, computed in float64.

    Args:
        grid: (frames, height, width) of tokens, frame-major.
        head_dim: even; its pairs are split over the axes by `split_head`.
        extra: tokens behind the grid that are not turned (they get 1), text for example. Not turning is the same as
            standing at position (0, 0, 0).
        theta: base of the frequencies theta^(-2i/d_axis).

    Returns:
        complex64 (T*H*W + extra, head_dim/2).
    """
    angles = []
    for axis, (length, features) in enumerate(zip(grid, split_head(head_dim), strict=True)):
        index = torch.arange(0, features, 2, dtype=torch.float64, device=device)
        frequency = theta ** (-index / max(features, 1))
        angle = torch.outer(torch.arange(length, dtype=torch.float64, device=device), frequency)
        shape = [1, 1, 1, features // 2]
        shape[axis] = length
        angles.append(angle.view(shape).expand(*grid, -1))
    turn = torch.cat(angles, dim=-1).flatten(0, 2)
    if extra:
        turn = torch.cat([turn, turn.new_zeros(extra, turn.shape[1])])
    return torch.polar(torch.ones_like(turn), turn).to(torch.complex64)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the interleaved feature pairs (0,1), (2,3), ... of x (B, N, H, D) by table (N, D/2); result in x's dtype."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, None]).flatten(-2).to(x.dtype)
