"""What decides about each token: a small network from the token, and a condition where there is one, to logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.layers.linear import Linear, linear_gelu
from longtake.layers.modulation import linear_fp32

OPEN = 3.0
"""z at the start, near enough: 95 of 100 draws are open."""


class TokenGate(nn.Module):
    """z = W2 GELU(W1 m(LN(x))), where m is LN(x) itself, or LN(x) (1 + scale) + shift from the condition.

    It starts open, whatever the condition: the bias of z is positive, and the condition's projection is zero.

    Args:
        width: features D of a token.
        gates: logits of each token.
        cond_dim: features of the condition, None without one.
    """

    def __init__(self, width: int, gates: int, cond_dim: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = Linear(width, max(1, width // 4))
        self.logits = Linear(max(1, width // 4), gates)
        self.condition = None if cond_dim is None else nn.Linear(cond_dim, 2 * width)
        self.open()
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)
            nn.init.zeros_(self.condition.bias)

    def open(self, bias: float = OPEN) -> None:
        """Set the bias of z."""
        nn.init.constant_(self.logits.bias, bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Tokens (..., N, D), condition (..., 1, cond_dim) -> logits float32 (..., N, gates)."""
        u = self.norm(x)
        if self.condition is not None and condition is not None:
            shift, scale = linear_fp32(self.condition, F.silu(condition.float())).chunk(2, dim=-1)
            u = torch.addcmul(shift, u.float(), scale + 1).to(x.dtype)
        return self.logits(linear_gelu(self.up, u)).float()

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens, the condition's projection not counted."""
        return tokens * self.up.out_features * (self.up.in_features + self.logits.out_features)
