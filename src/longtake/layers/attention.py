"""Dense attention over any number of tokens, and the fused projections around it."""

import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: (B, H, N, D). k, v: (B, H, M, D). Any strides whose last is 1 are used without a copy.
        mask: bool, broadcastable to (B, H, N, M); True = may be attended. None = all.
        scale: factor on q @ k^T; None = 1/sqrt(D).

    Returns:
        (B, H, N, D).
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


class FeedForward(nn.Module):
    """Linear, GELU (tanh form), Linear: (..., width) -> (..., width) through `inner` features."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))
