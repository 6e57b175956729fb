"""Muon for matrices and convolution kernels: momentum whose step is made orthogonal before it is taken.

Jordan et al., "Muon" (2024), with the step scaled to the size of AdamW's as in arXiv 2502.16982, eq. 4. torch.optim.Muon
takes two-dimensional parameters only; here a kernel (out, in, ...) counts as the matrix (out, in * ...), which is what
makes small convolutional tokenizers converge in a fraction of AdamW's steps.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from longtake.training.parallel import shards_like, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration."""


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of `matrix` (m, n) near 1 by Newton-Schulz iterations in bfloat16."""
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over parameters of two or more dimensions.

    Args:
        params: matrices (out, in) and kernels (out, in, ...).
        lr: learning rate on AdamW's scale: a step has the root mean square 0.2 * lr.
        momentum: of the gradient, applied in Nesterov's form.
        weight_decay: decoupled, as in AdamW.
        steps: Newton-Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step from the gradients."""
        for group in self.param_groups:
            held = [p for p in group["params"] if p.grad is not None]
            if not held:
                continue
            for p in held:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in held]
            gradients = [p.grad for p in held]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
            torch._foreach_mul_(held, 1 - group["lr"] * group["weight_decay"])
            for p, update in zip(held, ahead, strict=True):
                matrix = orthogonalise(whole(update).flatten(1), group["steps"])
                scale = 0.2 * max(matrix.shape) ** 0.5
                p.add_(shards_like(matrix.view(p.shape), p), alpha=-group["lr"] * scale)
