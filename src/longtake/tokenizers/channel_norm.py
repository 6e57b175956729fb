"""RMS norm over the channels of a clip, x / ||x||_2 * sqrt(C) * gain, with the SiLU that follows it, as one operation.

The norms of a video autoencoder are bound by memory. Written as single torch operations, norm and SiLU keep five
tensors of the clip's size for the backward pass; here it keeps the input and one number per pixel, and recomputes the
rest. The arithmetic is float32 whatever the input's type.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class ChannelNorm(nn.Module):
    """RMS norm over dimension 1, then SiLU if asked.

    Args:
        channels: size of dimension 1.
        dims: how many dimensions follow it, 3 for clips (gain of shape C,1,1,1), 2 for images.
        silu: whether SiLU follows.
    """

    def __init__(self, channels: int, dims: int = 3, silu: bool = True) -> None:
        super().__init__()
        self.silu = silu
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape, type and memory format."""
        return _NormSilu.apply(x, self.gamma, self.silu)  # pyright: ignore[reportReturnType]


class _NormSilu(torch.autograd.Function):
    """y = f(u), u = gain * h, h = r * x, r = sqrt(C) / ||x||_2; f = SiLU or the identity."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: Tensor, silu: bool) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=_wide(x))
        r = x.shape[1] ** 0.5 / norm.clamp_min_(1e-12)
        ctx.save_for_backward(x, r, gain)
        ctx.silu = silu  # pyright: ignore[reportAttributeAccessIssue]
        u = (x * r).mul_(gain)  # wide: r is
        return (F.silu(u, inplace=True) if silu else u).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, r, gain = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        h = x * r
        du = dy.to(h.dtype)
        if ctx.silu:  # pyright: ignore[reportAttributeAccessIssue]
            du = torch.ops.aten.silu_backward(du, h * gain)
        along = du * h
        d_gain = along.sum([d for d in range(x.ndim) if d != 1]).view_as(gain).to(gain.dtype)
        # dx = r (gain du - h mean_C(gain du h)): the mean is the part of the gradient along x, which the norm removes
        mean = torch.einsum("bc...,c->b...", along, gain.flatten().to(h.dtype)).unsqueeze(1).div_(x.shape[1])
        dx = (du * gain).addcmul_(h, mean, value=-1.0).mul_(r)
        return dx.to(x.dtype), d_gain, None


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
