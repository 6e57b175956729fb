"""Bootstrap: known widths, coverage, the lift of resampled distances, seeds."""

import math

import pytest
import torch

from longtake.errors import BadInput
from longtake.evaluation.metrics.bootstrap import (
    bootstrap_frechet_distance,
    bootstrap_kernel_distance,
    bootstrap_mean,
    bootstrap_sets,
)
from longtake.evaluation.metrics.frechet import Moments, frechet_distance
from longtake.evaluation.metrics.kernel import kernel_distance


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_the_interval_of_a_mean_has_the_normal_width():
    values = 3 + 2 * draw(400)
    found = bootstrap_mean(values, generator=seeded(), resamples=4000)
    half = 1.96 * float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)
    assert abs(found.bias) < 0.1 * half
    narrow = bootstrap_mean(values, generator=seeded(), resamples=4000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * float(values.std()) / 20, rel=0.1)


def test_nineteen_in_twenty_intervals_cover_the_true_mean():
    hits = 0
    for seed in range(200):
        found = bootstrap_mean(draw(40, seed=seed), generator=seeded(seed), resamples=400)
        hits += found.low <= 0 <= found.high
    assert 177 <= hits <= 199  # 190 expected


def test_weights_make_a_ratio_of_sums():
    right, asked = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 2.0, 2.0])
    found = bootstrap_mean(right / asked, weights=asked, generator=seeded(), resamples=500)
    assert found.value == pytest.approx(3 / 5)
    assert (found.low, found.high) == (0.0, 1.0)  # three times the clip with none right, or with all


def test_plain_quantiles_of_a_frechet_distance_lie_above_it_and_centred_ones_around():
    x, y = draw(60, 6, seed=1), draw(60, 6, seed=2)

    def distance(a, b):
        return frechet_distance(Moments.of(a), Moments.of(b))

    plain = bootstrap_sets(distance, (x, y), generator=seeded(3), resamples=100, centred=False)
    centred = bootstrap_frechet_distance(x, y, generator=seeded(3), resamples=100)
    assert plain.low > plain.value
    assert centred.low < centred.value == distance(x, y) < centred.high
    assert centred.high - centred.low == pytest.approx(plain.high - plain.low)
    # Resampling lifts the distance again by about its bias: tr S (1/N + 1/N) + ... = (6 + 10.5) / 30.
    assert centred.bias == pytest.approx(16.5 / 30, rel=0.4)


def test_frames_of_a_clip_are_drawn_together():
    # All frames of a clip are alike, so 12 clips are 12 independent values, however many frames they have.
    x, y = draw(12, 1, 2, seed=4), draw(12, 1, 2, seed=5) + 1
    one = bootstrap_frechet_distance(x, y, generator=seeded(6), resamples=60, ddof=0)
    many = bootstrap_frechet_distance(x.expand(12, 9, 2), y.expand(12, 9, 2), generator=seeded(6), resamples=60, ddof=0)
    assert many.value == pytest.approx(one.value) and many.low == pytest.approx(one.low)
    apart = bootstrap_frechet_distance(
        x.expand(12, 9, 2).flatten(0, 1), y.expand(12, 9, 2).flatten(0, 1), generator=seeded(6), resamples=60, ddof=0
    )
    assert apart.high - apart.low < 0.6 * (one.high - one.low)


def test_the_kernel_distance_is_not_lifted():
    x, y = draw(50, 4, seed=7), draw(40, 4, seed=8) + 0.5
    found = bootstrap_kernel_distance(x, y, generator=seeded(9), resamples=400)
    assert found.value == pytest.approx(kernel_distance(x, y))
    assert found.low < found.value < found.high
    spread = (found.high - found.low) / 4
    assert abs(found.bias) < 4 * spread / math.sqrt(400)
    # With repeated clips paired with themselves it is.
    naive = bootstrap_sets(kernel_distance, (x, y), generator=seeded(9), resamples=60)
    assert naive.bias > 4 * naive_error(naive)


def naive_error(interval):
    return (interval.high - interval.low) / 4 / math.sqrt(interval.resamples)


def test_an_interval_is_a_function_of_its_seed():
    values = draw(30)
    ends = [bootstrap_mean(values, generator=seeded(s), resamples=50) for s in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (torch.zeros(0), {}, "0 clips"),
        (torch.tensor([1.0, math.inf]), {}, "finite"),
        (torch.ones(3), {"level": 1.0}, "level"),
        (torch.ones(3), {"resamples": 1}, "resamples"),
        (torch.ones(3), {"weights": torch.zeros(3)}, "weights"),
    ],
)
def test_impossible_intervals_are_refused(values, options, words):
    with pytest.raises(BadInput, match=words):
        bootstrap_mean(values, generator=seeded(), **options)
