"""What a tensor will be at a step that is not computed, from what it was at those that were.

Every calibrator keeps what it needs in a dict that it is handed, and forecasts by one weighted sum of kept tensors, in
float32 or wider. Positions are step indices, or any other number that moves one way along a run.

- hold: the last value.
- taylor (TaylorSeer, arXiv 2503.06923): F_0 = y; F_(i+1) = (F_i - F_i of before) / d, with d the distance to the full step
  before; forecast sum_i F_i k^i / i! at distance k. Every order is divided by the last distance alone, as published,
  which is not exact from order 2 on.
- newton: the polynomial through the last order + 1 values, exact for polynomials of that degree at any spacing.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Kept = dict[str, Any]
BASES = ("taylor", "newton")


def remember(
    kept: Kept, at: float, values: Sequence[Tensor], order: int, basis: str, dtype: torch.dtype | None
) -> None:
    """Note the values of a full step.

    Args:
        kept: of this place; empty at first.
        at: position of the step.
        values: one or several tensors.
        order: highest order to forecast with, 0 = hold.
        basis: "taylor" or "newton".
        dtype: to keep them in; None = their own.
    """
    fresh = [value.detach() if dtype is None else value.detach().to(dtype) for value in values]
    if basis == "newton":
        points = [point for point in kept.get("points", []) if point[0] != at]
        kept["points"] = [(at, fresh), *points][: order + 1]
        return
    before, factors = kept.get("factors", []), [fresh]
    distance = at - kept.get("at", at)
    for i in range(order):
        if distance == 0 or i >= len(before):
            break
        factors.append([(new - old).div_(distance) for new, old in zip(factors[i], before[i], strict=True)])
    kept["factors"], kept["at"] = factors, at


def forecast(kept: Kept, at: float) -> list[Tensor]:
    """What the values are expected to be at a position, in float32 or wider unless nothing is added up."""
    if "points" in kept:
        places = [point[0] for point in kept["points"]]
        weights, tensors = _lagrange(places, at), [point[1] for point in kept["points"]]
    else:
        distance, tensors = at - kept["at"], kept["factors"]
        weights = [distance**i / math.factorial(i) for i in range(len(tensors))]
    return [_weighted(one, weights) for one in zip(*tensors, strict=True)]


def known(kept: Kept) -> bool:
    """Whether anything has been noted."""
    return "points" in kept or "factors" in kept


def _lagrange(places: Sequence[float], at: float) -> list[float]:
    """Weights of the values at `places` in the polynomial through them, at a position."""
    return [
        math.prod((at - other) / (own - other) for j, other in enumerate(places) if j != i)
        for i, own in enumerate(places)
    ]


def _weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    total = tensors[0].to(wide) if weights[0] == 1 else tensors[0].to(wide) * weights[0]
    total = torch.add(total, tensors[1], alpha=weights[1])  # the kept value itself stays as it is
    for tensor, weight in zip(tensors[2:], weights[2:], strict=True):
        total.add_(tensor, alpha=weight)
    return total
