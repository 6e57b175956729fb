"""Adaptive layer norm with zero start (DiT, arXiv 2212.09748): a condition sets shift, scale and gate of each branch.

The condition's projections run in float32 whatever the dtype of the rest: in bf16 they drift visibly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.layers.linear import linear


def linear_fp32(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer in float32, also under autocast and with weights of another dtype."""
    with torch.autocast(x.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return linear(x.float(), layer.weight.float(), bias)


class ModulationProjection(nn.Module):
    """SiLU then Linear from a condition (B, D) to `parts` float32 vectors (B, parts, D). Zero at the start."""

    def __init__(self, width: int, parts: int):
        super().__init__()
        self.linear = nn.Linear(width, parts * width)
        self.parts = parts
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> Tensor:
        return linear_fp32(self.linear, F.silu(condition.float())).unflatten(-1, (self.parts, -1))


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm without learned affine, then * (1 + scale) + shift, in float32; result in x's dtype.

    x (B, N, D); shift, scale (B, 1, D) float32.
    """
    return torch.addcmul(shift, F.layer_norm(x.float(), x.shape[-1:], eps=eps), scale + 1).to(x.dtype)


def add_gated(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate * update for x, update (B, N, D) and gate (B, 1, D) float32; result in x's dtype."""
    return torch.addcmul(x, gate, update).to(x.dtype)
