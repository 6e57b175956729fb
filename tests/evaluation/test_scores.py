"""Scores: floors, intervals and their names, on features whose distribution is known."""

import pytest
import torch

from longtake.evaluation.metrics.frechet import Moments, frechet_distance
from longtake.evaluation.scores import (
    Chance,
    curve_of,
    frechet_value,
    inception_value,
    kernel_value,
    mean_value,
    neighbour_values,
    share_value,
)

CHANCE = Chance(0, 100)


def normal(count: int, width: int = 4, shift: float = 0.0, seed: int = 0, rows: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, rows, width, generator=generator, dtype=torch.float64) + shift


def test_the_floor_is_what_two_real_sets_of_these_sizes_are_apart() -> None:
    real = normal(400)
    value, _ = frechet_value("FVD[x]", "fvd", normal(100, seed=1), real, 1, CHANCE)
    drawn = [
        frechet_distance(Moments.of(normal(400, seed=2 * i + 10)[:, 0]), Moments.of(normal(100, seed=2 * i + 11)[:, 0]))
        for i in range(40)
    ]
    assert value.reference == pytest.approx(sum(drawn) / 40, rel=0.35) and value.reference_name == "floor"
    assert value.details["floor_half_clips"] == 200 and len(value.details["floor_halves"]) == 5


def test_the_interval_holds_the_distance_of_larger_sets() -> None:
    """Both are of 300 clips shifted by 1 in each of 4 features: the distance is 4 and the bias."""
    value, _ = frechet_value("FVD[x]", "fvd", normal(300, shift=1, seed=1), normal(300), 1, CHANCE)
    assert value.low is not None and value.high is not None and value.low < 4 < value.high
    assert 0.3 < value.high - value.low < 2.5 and value.low < value.value < value.high
    bigger, _ = frechet_value("FVD[x]", "fvd", normal(1200, shift=1, seed=1), normal(1200), 1, CHANCE)
    assert bigger.high - bigger.low < 0.7 * (value.high - value.low)


def test_a_set_against_itself() -> None:
    value, curves = frechet_value("FVD[x]", "fvd", normal(64), normal(64), 1, CHANCE)
    assert value.value < 1e-9 and value.better == "lower" and value.clips == 64
    assert curves[0].places == value.details["sizes"] and len(curves[0].values) == 5
    assert kernel_value("KVD[x]", normal(64), normal(64), CHANCE).value < 0  # unbiased, so copies are below 0


def test_frames_of_a_clip_are_drawn_together() -> None:
    """Rows of one clip are alike, so there is less in 17 of them than in 17 clips: the interval must be as wide."""
    one = normal(40, seed=1)
    many = one.expand(-1, 17, -1)
    narrow, _ = frechet_value("FID[x]", "fid", one, normal(40), 0, CHANCE)
    wide, _ = frechet_value("FID[x]", "fid", many, normal(40).expand(-1, 17, -1), 0, CHANCE)
    assert wide.value == pytest.approx(narrow.value, rel=1e-9)
    assert (wide.high - wide.low) == pytest.approx(narrow.high - narrow.low, rel=1e-6)


def test_few_clips_are_said_to_be_few() -> None:
    value, curves = frechet_value("FVD[x]", "fvd", normal(6, width=8), normal(6, width=8), 1, CHANCE)
    assert "6 and 6 clips for 8 features" in value.note and value.low is None and curves == []
    assert frechet_value("FVD[x]", "fvd", normal(30), normal(30), 1, CHANCE)[0].note == ""


def test_draws_follow_from_the_seed() -> None:
    sides = normal(50, seed=1), normal(50)
    one, same, other = (frechet_value("FVD[x]", "fvd", *sides, 1, Chance(seed, 50))[0] for seed in (0, 0, 1))
    assert one == same and one.low != other.low and one.value == other.value


def test_kernel_distance_of_equal_and_of_shifted_sets() -> None:
    equal = kernel_value("KVD[x]", normal(200, seed=1), normal(200), CHANCE)
    shifted = kernel_value("KVD[x]", normal(200, shift=1, seed=1), normal(200), CHANCE)
    assert equal.low < 0 < equal.high and shifted.low > equal.high and abs(equal.reference) < 0.2


def test_neighbours_see_copies_and_missing_kinds() -> None:
    real = normal(200)
    fresh = {v.metric: v.value for v in neighbour_values("x", normal(100, seed=1), real)}
    copied = {v.metric: v.value for v in neighbour_values("x", real[:100], real)}
    narrow = {v.metric: v.value for v in neighbour_values("x", normal(100, seed=1) * 0.1, real)}
    assert 0.4 < fresh["nearest"] < 0.6 and copied["nearest"] > 0.95
    assert fresh["precision"] > 0.8 and narrow["precision"] > 0.9 and narrow["recall"] < 0.3 < fresh["recall"]
    assert neighbour_values("x", real[:4], real) == []


def test_inception_score_of_sure_and_varied_answers() -> None:
    sure = torch.eye(4, dtype=torch.float64).repeat(25, 1)[:, None]
    value = inception_value("scenes-3d", sure, sure[:, :, :], CHANCE)
    assert (
        value.value == pytest.approx(4, abs=0.01) and value.name == "IS[scenes-3d]" and value.reference == value.value
    )
    assert value.details["splits"] == 2
    assert inception_value("c3d", sure[:1].repeat(8, 1, 1), None, CHANCE).value == pytest.approx(1)


def test_a_mean_with_the_interval_that_statistics_gives_it() -> None:
    numbers = normal(400, width=1)[:, 0, 0] * 3 + 5
    value = mean_value("flicker", "flicker", numbers, numbers[:100], "higher", Chance(0, 400))
    wanted = 1.96 * float(numbers.std()) / 20
    assert value.value == pytest.approx(float(numbers.mean())) and value.reference_name == "real"
    assert (value.high - value.low) / 2 == pytest.approx(wanted, rel=0.15)
    alone = mean_value("psnr", "psnr", numbers[:1], None, "higher", CHANCE)
    assert alone.low is None and alone.reference is None


def test_a_share_is_over_what_was_asked() -> None:
    right, total = torch.tensor([2.0, 0, 1, 0]), torch.tensor([2.0, 1, 1, 0])
    value = share_value("readback shape", "readback shape", right, total, 0.99, CHANCE)
    assert value.value == 0.75 and value.clips == 3 and value.details["asked"] == 4
    assert value.reference == 0.99 and value.reference_name == "own accuracy"


def test_a_curve_is_the_mean_of_the_clips_curves() -> None:
    fake = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]], dtype=torch.float64)
    curve = curve_of("drift", "window", fake, fake[:1], CHANCE)
    assert curve.values == (0.0, 2.0, 3.0) and curve.real == (0.0, 1.0, 2.0) and curve.places == (0.0, 1.0, 2.0)
    assert len(curve.low) == len(curve.high) == 3 and curve.low[1] <= 2 <= curve.high[1]
