"""From rows that observers saw to numbers: distances between two sets, means over clips, each with its interval.

Bootstrap draws and random halves come from one seed each, and rows stand in an order that the clips' content decides,
so a number does not depend on anything else.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longtake.data.order import mix_seed
from longtake.evaluation.metrics.bootstrap import (
    bootstrap_frechet_distance,
    bootstrap_kernel_distance,
    bootstrap_mean,
    bootstrap_sets,
)
from longtake.evaluation.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_distance_infinity,
    rank_note,
)
from longtake.evaluation.metrics.inception_score import inception_score
from longtake.evaluation.metrics.kernel import kernel_distance
from longtake.evaluation.metrics.neighbours import memorisation, precision_recall
from longtake.evaluation.networks.contract import label
from longtake.evaluation.results import Curve, Value

HALVINGS = 5
"""Random halvings of the real clips that a floor is the mean of."""
WIDEST = 512
"""Features beyond which a Frechet distance has no bootstrap interval: each resample would take seconds."""
FEWEST = 8
"""Clips of a set below which it is not halved."""
_FLOOR, _FIT, _BOOT = range(3)


@dataclass(frozen=True)
class Chance:
    """Where all randomness of scores comes from: the protocol's seed, and how many bootstrap resamples to draw."""

    seed: int = 0
    resamples: int = 200
    confidence: float = 0.95

    @property
    def drawing(self) -> dict[str, Any]:
        """How `longtake.evaluation.metrics.bootstrap` shall draw."""
        return {"generator": self.generator(_BOOT), "resamples": max(2, self.resamples), "level": self.confidence}

    def generator(self, what: int) -> torch.Generator:
        """A generator of its own for each purpose."""
        return torch.Generator().manual_seed(mix_seed(self.seed, what))


# ------------------------------------------------------------------------------------------------------ between sets


def frechet_value(
    name: str, metric: str, fake: Tensor, real: Tensor, ddof: int, chance: Chance
) -> tuple[Value, list[Curve]]:
    """Frechet distance of rows (N, R, D) and (M, R, D) with floor, extrapolation and interval over clips."""
    rows = fake.flatten(0, 1), real.flatten(0, 1)
    of_fake, of_real = (Moments.of(row) for row in rows)
    value = frechet_distance(of_real, of_fake, ddof=ddof)
    details: dict = {"width": of_real.width}
    floor = None
    if len(real) >= FEWEST:
        halves = [
            frechet_distance(Moments.of(a.flatten(0, 1)), Moments.of(b.flatten(0, 1)), ddof=ddof)
            for a, b in _halves(real, chance)
        ]
        half = len(real) // 2
        # The bias falls as 1/Na + 1/Nb; what is measured at half the clips is brought to all of them.
        floor = sum(halves) / len(halves) * (1 / len(real) + 1 / len(fake)) / (2 / half)
        details |= {"floor_halves": halves, "floor_half_clips": half}
    low = high = None
    if chance.resamples and of_real.width <= WIDEST and min(len(real), len(fake)) >= FEWEST:
        ends = bootstrap_frechet_distance(real, fake, ddof=ddof, **chance.drawing)
        low, high = max(0.0, ends.low), ends.high  # laid around a value near 0 it would reach below
    curves = []
    if min(len(real), len(fake)) >= 20:
        fit = frechet_distance_infinity(rows[1], rows[0], generator=chance.generator(_FIT), ddof=ddof)
        details |= {"infinity": fit.value, "slope": fit.slope, "sizes": fit.sizes, "distances": fit.distances}
        curves.append(Curve(name, "features of each set", tuple(map(float, fit.sizes)), fit.distances))
    note = rank_note(of_real, of_fake, floor) or ""
    return Value(name, metric, value, low, high, "lower", floor, "floor", len(fake), details, note), curves


def kernel_value(name: str, fake: Tensor, real: Tensor, chance: Chance) -> Value:
    """Kernel distance of rows (N, 1, D) and (M, 1, D), with that of two real halves, which is 0 on average."""
    fake, real = fake.flatten(0, 1), real.flatten(0, 1)
    value = kernel_distance(real, fake)
    floor = None
    if len(real) >= FEWEST:
        halves = [kernel_distance(a, b) for a, b in _halves(real, chance)]
        floor = sum(halves) / len(halves)
    low = high = None
    if chance.resamples and min(len(real), len(fake)) >= FEWEST:
        ends = bootstrap_kernel_distance(real, fake, **chance.drawing)
        low, high = ends.low, ends.high
    return Value(name, "kvd", value, low, high, "lower", floor, "floor", len(fake))


def neighbour_values(network: str, fake: Tensor, real: Tensor) -> list[Value]:
    """Precision, recall and nearness of rows (N, 1, D) and (M, 1, D); none for a handful of clips."""
    fake, real = fake.flatten(0, 1), real.flatten(0, 1)
    if min(len(fake), len(real)) < FEWEST:
        return []
    found = precision_recall(real, fake)
    half = len(real) // 2
    copied = memorisation(fake, real[:half], real[half:])
    details = {"ratio": copied.ratio if copied.ratio == copied.ratio else None, "copies": copied.copies}
    count = len(fake)
    return [
        Value(label("precision", network), "precision", found.precision, better="higher", clips=count),
        Value(label("recall", network), "recall", found.recall, better="higher", clips=count),
        Value(label("nearest", network), "nearest", copied.closer, None, None, "", 0.5, "fresh", count, details),
    ]


def inception_value(network: str, probabilities: Tensor, real: Tensor | None, chance: Chance) -> Value:
    """Inception score of class probabilities (N, 1, K), the mean over up to 10 parts, with that of the real clips."""
    p = probabilities.flatten(0, 1)
    splits = max(1, min(10, len(p) // 50))
    found = inception_score(p, splits=splits)
    low = high = None
    if chance.resamples and len(p) > 1:
        ends = bootstrap_sets(lambda drawn: inception_score(drawn, splits=splits).mean, [p], **chance.drawing)
        low, high = ends.low, ends.high
    value = Value(label("IS", network), "is", found.mean, low, high, "higher", clips=len(p))
    value = replace(value, details={"splits": splits, "std": found.std})
    if real is None:
        return value
    q = real.flatten(0, 1)
    of_real = inception_score(q, splits=max(1, min(10, len(q) // 50))).mean
    return replace(value, reference=of_real, reference_name="real")


# ---------------------------------------------------------------------------------------------------- means over clips


def mean_value(
    name: str, metric: str, fake: Tensor, real: Tensor | None, better: str, chance: Chance, note: str = ""
) -> Value:
    """Mean of one number for each clip, (N,), with that of the real clips beside it."""
    low, high = _mean_interval(fake, chance)
    reference = None if real is None else float(real.mean())
    told = "" if real is None else "real"
    return Value(name, metric, float(fake.mean()), low, high, better, reference, told, len(fake), note=note)


def share_value(
    name: str, metric: str, right: Tensor, total: Tensor, own: float | None, chance: Chance, note: str = ""
) -> Value:
    """Share of right answers, (N,) right of (N,) asked in each clip, with the accuracy of who answered beside it."""
    asked = total > 0
    low, high = _mean_interval(right[asked] / total[asked], chance, total[asked])
    share, told = float(right.sum() / total.sum()), "" if own is None else "own accuracy"
    details = {"asked": int(total.sum())}
    return Value(name, metric, share, low, high, "higher", own, told, int(asked.sum()), details, note)


def curve_of(name: str, along: str, fake: Tensor, real: Tensor | None, chance: Chance) -> Curve:
    """Mean over clips of a curve of each, (N, W), with its interval, and that of the real clips."""
    ends = [_mean_interval(column, chance) for column in fake.T]
    low, high = zip(*ends, strict=True)
    return Curve(
        name,
        along,
        tuple(float(place) for place in range(fake.shape[1])),
        tuple(fake.mean(0).tolist()),
        () if None in low else low,
        () if None in high else high,
        () if real is None else tuple(real.mean(0).tolist()),
    )


def _mean_interval(numbers: Tensor, chance: Chance, weights: Tensor | None = None) -> tuple[float | None, float | None]:
    if not chance.resamples or len(numbers) < 2:
        return None, None
    ends = bootstrap_mean(numbers, weights=weights, **chance.drawing)
    return ends.low, ends.high


def _halves(real: Tensor, chance: Chance) -> list[tuple[Tensor, Tensor]]:
    """Random halves of clips, `HALVINGS` times."""
    generator = chance.generator(_FLOOR)
    half = len(real) // 2
    orders = [torch.randperm(len(real), generator=generator) for _ in range(HALVINGS)]
    return [(real[order[:half]], real[order[half : 2 * half]]) for order in orders]
