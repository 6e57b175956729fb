"""Dense attention over any number of tokens, and the feed-forward network that follows it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.layers.linear import Linear, linear_gelu

SMALL = 2**23  # scores of one attention, B*H*N*M, up to which they are worth holding in memory (16 MiB in bf16)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None) -> Tensor:
    """Scaled dot-product attention.

    Small ones in bf16 on a CPU are computed as two plain matrix products: torch's fused kernel runs there at the speed
    of float32 and takes 1.6 to 2.9 times as long. Scores are then rounded to bf16, which raises the error against
    float64 from 3.7e-3 to 5.0e-3 of the result (benchmarks/layers.py measures both).

    Args:
        q: (B, H, N, D). k, v: (B, H, M, D). Any strides whose last is 1 are fine.
        mask: bool, broadcastable to (B, H, N, M); True = may be attended. None = all.
        scale: factor on q @ k^T; None = 1/sqrt(D).

    Returns:
        (B, H, N, D).
    """
    small = q.shape[:-1].numel() * k.shape[2] <= SMALL
    if small and q.dtype == k.dtype == v.dtype == torch.bfloat16 and q.device.type == "cpu":
        return _explicit(q, k, v, mask, q.shape[-1] ** -0.5 if scale is None else scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same as two batched matrix products around a softmax that holds all scores."""
    heads = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = q.new_zeros(1, 1, 1)
    if mask is not None:
        bias = q.new_zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        bias = bias.expand(*heads, *mask.shape[-2:]).flatten(0, 1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, heads)


class FeedForward(nn.Module):
    """Linear, GELU, Linear: (..., width) -> (..., width) through `inner` features.

    The exact GELU unless a published network has its `tanh` form: torch computes it in less than half the time on a CPU.
    """

    def __init__(self, width: int, inner: int, tanh: bool = False):
        super().__init__()
        self.approximate = "tanh" if tanh else "none"
        self.up = Linear(width, inner)
        self.down = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.down(linear_gelu(self.up, x, self.approximate))
