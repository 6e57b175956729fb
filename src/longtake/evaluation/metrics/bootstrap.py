"""Confidence intervals by the percentile bootstrap: clips are drawn again with replacement, the metric computed anew.

For a mean over clips the quantiles of the resampled means are the interval. A distance between two sets is another
matter: a resample repeats clips and so has fewer different ones, which lifts a Fréchet distance a second time by about
its own bias; its plain quantiles often lie wholly above the value. `bootstrap_sets` therefore takes the spread of the
resampled distances about their own mean and lays it around the value (`centred`), and reports by how much they were
lifted (`Interval.bias`). The interval then says how far the value would move with other clips of the same number; it
does not take out the bias of that number itself, see `frechet_distance_infinity` for that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.evaluation.metrics.features import check_pair
from longtake.evaluation.metrics.frechet import Moments, frechet_distance
from longtake.evaluation.metrics.kernel import kernel_distance, weighted_kernel_distance

CHUNK = 1 << 22
"""Numbers drawn at a time."""


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval.

    Attributes:
        value: of the clips themselves. low, high: ends of the interval of probability `level`.
        resamples: how many were drawn. bias: mean over resamples less the value; near 0 for means.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int
    bias: float


def bootstrap_mean(
    values: Tensor,
    *,
    generator: torch.Generator,
    weights: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean over clips, or of a ratio of sums.

    Args:
        values: (N,), one number per clip, all finite. generator: on the CPU.
        weights: (N,), 0 or more; the mean is then sum(w v) / sum(w). Shares of right answers weighted by how many were
            asked give the accuracy over all answers, resampled by clips as it should be.

    Raises:
        BadInput: nothing to average, values that are not finite, or an impossible level.
    """
    values = values.detach().double().flatten().cpu()
    weights = torch.ones_like(values) if weights is None else weights.detach().double().flatten().cpu()
    if not len(values) or not values.isfinite().all() or len(weights) != len(values) or not weights.sum() > 0:
        raise BadInput(f"a mean of {len(values)} clips; give at least one, all finite, and weights above 0 in sum.")
    _check(resamples, level)
    found = []
    for count in _chunks(resamples, len(values)):
        drawn = torch.randint(len(values), (count, len(values)), generator=generator)
        found.append((values[drawn] * weights[drawn]).sum(1) / weights[drawn].sum(1))
    means = torch.cat(found)
    return _interval(float((values * weights).sum() / weights.sum()), means[means.isfinite()], level, centred=False)


def bootstrap_sets(
    statistic: Callable[..., float],
    sets: Sequence[Tensor],
    *,
    generator: torch.Generator,
    resamples: int = 200,
    level: float = 0.95,
    centred: bool = True,
) -> Interval:
    """Interval of a statistic of one or more sets of clips, each set resampled on its own.

    Args:
        statistic: takes as many tensors as there are sets. A set that is the whole population, not a sample of it,
            belongs inside the statistic instead.
        sets: tensors with clips along the first axis; frames of a clip belong together: (N, T, D).
        centred: lay the spread around the value, as the head of this file says; for distances.
    """
    _check(resamples, level)
    if not sets or not all(len(one) for one in sets):
        raise BadInput("a statistic of no clips cannot be resampled.")
    found = []
    for _ in range(resamples):
        drawn = [torch.randint(len(one), (len(one),), generator=generator).to(one.device) for one in sets]
        found.append(statistic(*(one[index] for one, index in zip(sets, drawn, strict=True))))
    return _interval(statistic(*sets), torch.tensor(found, dtype=torch.float64), level, centred)


def bootstrap_frechet_distance(
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    resamples: int = 200,
    level: float = 0.95,
    ddof: int = 1,
) -> Interval:
    """Interval of the Fréchet distance of features, (N, D) and (M, D), or (N, R, D) with R rows per clip."""

    def distance(a: Tensor, b: Tensor) -> float:
        return frechet_distance(Moments.of(a.flatten(0, -2)), Moments.of(b.flatten(0, -2)), ddof=ddof)

    return bootstrap_sets(distance, (x, y), generator=generator, resamples=resamples, level=level)


def bootstrap_kernel_distance(
    x: Tensor, y: Tensor, *, generator: torch.Generator, resamples: int = 200, level: float = 0.95
) -> Interval:
    """Interval of the kernel distance of features (N, D) and (M, D), all resamples in one pass over the pairs.

    A clip that is drawn twice is not paired with its copy, so resampled distances stay unbiased and `bias` is near 0.
    """
    _check(resamples, level)
    x, y = check_pair(x, y, 2)
    counts = []
    for size in (len(x), len(y)):
        drawn = torch.randint(size, (resamples, size), generator=generator)
        counts.append(torch.zeros(resamples, size).scatter_add_(1, drawn, torch.ones(resamples, size)))
    usable = (counts[0] > 0).sum(1).gt(1) & (counts[1] > 0).sum(1).gt(1)  # two different clips on either side
    found = weighted_kernel_distance(x, y, counts[0][usable], counts[1][usable]).cpu()
    return _interval(kernel_distance(x, y), found, level, centred=True)


def _interval(value: float, found: Tensor, level: float, centred: bool) -> Interval:
    tail = (1 - level) / 2
    ends = torch.quantile(found, torch.tensor([tail, 1 - tail], dtype=found.dtype))
    bias = float(found.mean()) - value
    low, high = (float(end) - (bias if centred else 0.0) for end in ends)
    return Interval(value, low, high, level, len(found), bias)


def _check(resamples: int, level: float) -> None:
    if resamples < 2 or not 0 < level < 1:
        raise BadInput(f"{resamples} resamples at level {level}; use 2 or more, and a level between 0 and 1.")


def _chunks(resamples: int, clips: int) -> list[int]:
    most = max(1, CHUNK // clips)
    return [min(most, resamples - done) for done in range(0, resamples, most)]
