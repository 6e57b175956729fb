"""Rotary positions on three axes: each axis turns its own share of the pairs of every attention head (RoFormer, arXiv
2104.09864; split over time, height and width as in Wan, arXiv 2503.20314)."""

from collections.abc import Sequence

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
    places: Sequence[Tensor] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Unit complex numbers by which the feature pairs of each token are turned, computed in float64.

    Args:
        grid: (frames, height, width) of tokens, frame-major.
        head_dim: even; its pairs are split over the axes by `split_head`.
        extra: tokens behind the grid that are not turned (they get 1), text for example. Not turning is the same as
            standing at position (0, 0, 0).
        theta: base of the frequencies theta^(-2i/d_axis).
        places: positions on each of the three axes, which need not be whole; None = 0, 1, 2 and so on.

    Returns:
        complex64 (T*H*W + extra, head_dim/2).
    """
    angles = []
    for axis, (length, features) in enumerate(zip(grid, split_head(head_dim), strict=True)):
        index = torch.arange(0, features, 2, dtype=torch.float64, device=device)
        frequency = theta ** (-index / max(features, 1))
        own = torch.arange(length) if places is None else places[axis]
        angle = torch.outer(own.to(frequency), frequency)
        shape = [1, 1, 1, features // 2]
        shape[axis] = length
        angles.append(angle.view(shape).expand(*grid, -1))
    turn = torch.cat(angles, dim=-1).flatten(0, 2)
    if extra:
        turn = torch.cat([turn, turn.new_zeros(extra, turn.shape[1])])
    return torch.polar(torch.ones_like(turn), turn).to(torch.complex64)


def rotary_line(
    places: int | Tensor, head_dim: int, *, theta: float = 1e4, device: torch.device | str | None = None
) -> Tensor:
    """Turns along one axis, for all pairs of a head: complex64 (length, head_dim/2).

    Args:
        places: the length, for positions 0, 1, 2 and so on; or the positions (length,), which need not be whole.
        head_dim: even. theta: base of the frequencies theta^(-2i/head_dim).
    """
    index = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    own = torch.arange(places) if isinstance(places, int) else places
    turn = torch.outer(own.to(index), theta ** (-index / head_dim))
    return torch.polar(torch.ones_like(turn), turn).to(torch.complex64)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the interleaved pairs of (..., S, D) by a table (S, D/2), in float32; result in x's dtype."""
    return torch.view_as_real(_pairs(x.float().contiguous()) * table).flatten(-2).to(x.dtype)


def norm_rotate(x: Tensor, weight: Tensor, table: Tensor | None, eps: float = 1e-6) -> Tensor:
    """RMSNorm over each head's features, then turn its interleaved pairs (0,1), (2,3), ... by their positions.

    Computed in float32 (float64 for float64), returned in x's dtype. One autograd node instead of a dozen: the backward
    keeps only x and one number per head, in a third of the time and a hundredth of the memory on a CPU
    (benchmarks/layers.py).

    Args:
        x: (B, S, 2, H, D), q and k before norm.
        weight: (S, 2, 1, D), or (1, 2, 1, D) when all tokens share it; the norm's gain.
        table: complex (S, D/2) of `rotary_table`, or None to leave positions out.
        eps: added to the mean square.

    Returns:
        (B, S, 2, H, D).
    """
    return _NormRotate.apply(x, weight, table, eps)


class _NormRotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, table: Tensor | None, eps: float) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype).square_()
        inverse = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        y = (x * inverse).mul_(weight)
        if table is not None:
            _pairs(y).mul_(table[:, None, None])
        ctx.save_for_backward(x, inverse, weight, table)
        return y.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, weight, table = ctx.saved_tensors
        grad = grad.to(inverse.dtype)
        if table is not None:  # the inverse of a turn is its conjugate
            grad = torch.view_as_real(_pairs(grad) * table[:, None, None].conj()).flatten(-2)
        normed = x * inverse
        product = grad * normed
        grad_weight = product.sum_to_size(weight.shape).to(weight.dtype) if ctx.needs_input_grad[1] else None
        # d(x/rms)/dx applied to g*w: (g*w - normed * mean(g*w*normed)) / rms
        mean = (product.mul_(weight)).mean(-1, keepdim=True)
        grad_x = (grad * weight).addcmul_(normed, mean, value=-1).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight, None, None


def _pairs(x: Tensor) -> Tensor:
    """Real (..., D) seen as complex (..., D/2)."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))
