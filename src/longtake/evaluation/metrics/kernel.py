"""Kernel distance between two sets of features (KVD, KID): the unbiased squared maximum mean discrepancy.

    MMD^2 = mean_(i != j) k(xi, xj) + mean_(i != j) k(yi, yj) - 2 mean_ij k(xi, yj),    k(x, y) = (x.y / D + 1)^3

(arXiv 1801.01401). Its expectation is the true value at every N, 0 for equal distributions, so it may be negative: prefer
it to the Fréchet distance for few clips. TATS takes all clips at once (`kernel_distance`); KID as first published takes
the mean over small subsets (`kernel_distance_subsets`); StyleGAN's code prints that times 1,000, we never do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.evaluation.metrics.features import check_pair, rows

BLOCK = 2048
"""Rows of the kernel matrix held at a time: 32 MiB in float64 against as many columns."""


def kernel_distance(x: Tensor, y: Tensor, *, degree: int = 3, block: int = BLOCK) -> float:
    """Return the unbiased MMD^2 of features (N, D) and (M, D) over all pairs of clips; memory `block`^2.

    Raises:
        BadInput: fewer than 2 clips in a set, other widths, features that are not finite.
    """
    x, y = check_pair(x, y, 2)
    return float(weighted_kernel_distance(x, y, x.new_ones(1, len(x)), y.new_ones(1, len(y)), degree, block))


def weighted_kernel_distance(
    x: Tensor, y: Tensor, weights_x: Tensor, weights_y: Tensor, degree: int = 3, block: int = BLOCK
) -> Tensor:
    """Return the MMD^2 of R weightings of the clips, such as how often a bootstrap draws each: (R,) float64.

    A pair's weight is the product of its clips' weights, and a clip never pairs with itself, however often it is drawn:
    otherwise the large k(x, x) of repeated clips would be taken for likeness within the set.

    Args:
        x, y: (N, D) and (M, D). weights_x, weights_y: (R, N) and (R, M), none negative, two of each row above 0.
    """
    x, y = check_pair(x, y, 2)
    weights_x, weights_y = weights_x.to(x), weights_y.to(x)
    across = _weighted_sum(x, y, weights_x, weights_y, degree, block)
    across = across / (weights_x.sum(1) * weights_y.sum(1))
    return _within(x, weights_x, degree, block) + _within(y, weights_y, degree, block) - 2 * across


@dataclass(frozen=True)
class SubsetDistance:
    """Kernel distance over subsets: `mean` and standard deviation `std` over `subsets` draws of `size` clips."""

    mean: float
    std: float
    subsets: int
    size: int


def kernel_distance_subsets(
    x: Tensor, y: Tensor, *, generator: torch.Generator, subsets: int = 100, size: int = 1000, degree: int = 3
) -> SubsetDistance:
    """Return KID as published: the mean of `kernel_distance` over random subsets, each drawn without replacement.

    Args:
        generator: on the CPU. size: clips of each set in a subset, cut to what the smaller set has; the result says
            which size was used.
    """
    x, y = check_pair(x, y, 2)
    size = min(size, len(x), len(y))
    if subsets < 1 or size < 2:
        raise BadInput(f"{subsets} subsets of {size} clips; at least 1 of 2 are needed.")
    values = []
    for _ in range(subsets):
        i = torch.randperm(len(x), generator=generator)[:size].to(x.device)
        j = torch.randperm(len(y), generator=generator)[:size].to(x.device)
        values.append(kernel_distance(x[i], y[j], degree=degree))
    found = torch.tensor(values, dtype=torch.float64)
    return SubsetDistance(float(found.mean()), float(found.std(correction=0)), subsets, size)


def polynomial_kernel(x: Tensor, y: Tensor, degree: int = 3) -> Tensor:
    """Return (x.y / D + 1)^degree of (N, D) and (M, D): (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** degree


def _within(x: Tensor, weights: Tensor, degree: int, block: int) -> Tensor:
    own = (x.square().sum(1) / x.shape[1] + 1) ** degree  # k(x, x)
    pairs = _weighted_sum(x, x, weights, weights, degree, block) - weights.square() @ own
    return pairs / (weights.sum(1).square() - weights.square().sum(1))


def _weighted_sum(x: Tensor, y: Tensor, u: Tensor, v: Tensor, degree: int, block: int) -> Tensor:
    """Sum over i, j of u_ri v_rj k(xi, yj): (R,)."""
    total = u.new_zeros(len(u))
    for i in rows(len(x), block):
        for j in rows(len(y), block):
            total += (u[:, i] @ polynomial_kernel(x[i], y[j], degree) * v[:, j]).sum(1)
    return total
