"""Multiply-accumulates of one edge, as gathered execution pays them, and the loss that holds them to a budget.

An edge pays `token` for each token that takes it, and `once` as soon as one does (keys and values of the whole map, the
depth-wise convolution). With gates g in [0, 1] of a row, sum(g) token + max(g) once: exact for binary gates, and
differentiable. Norms, activations and sums are not counted.
"""

from typing import NamedTuple

from torch import Tensor


class EdgeCost(NamedTuple):
    """Multiply-accumulates of an edge: of each token that takes it, and of a sample of which any does."""

    token: int
    once: int = 0

    def of(self, gates: Tensor) -> Tensor:
        """Gates (B, N) -> (B,)."""
        return self.token * gates.sum(1) + self.once * gates.amax(1)

    def full(self, tokens: int) -> int:
        """Of a sample whose tokens all take it."""
        return self.token * tokens + self.once


def budget_loss(share: Tensor, budget: float) -> Tensor:
    """max(0, E[share] - budget)^2: nothing below the budget, so that it never pays to close gates further.

    Args:
        share: (B,) of all multiply-accumulates that each sample pays, with its gradient towards the gates.
        budget: in (0, 1].
    """
    return (share.mean() - budget).clamp_min(0).square()
