"""Fréchet distance: closed forms, invariances, singular covariances, streaming, and its bias."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import BadInput
from longtake.evaluation.metrics.frechet import (
    Moments,
    covariance_root,
    expected_floor,
    frechet_distance,
    frechet_distance_infinity,
    rank_note,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(count, width, seed):
    return draw(count, width, seed=seed) @ draw(width, width, seed=seed + 100) + draw(width, seed=seed + 200)


def gaussian(mean, covariance, count=1000):
    """Moments that are exactly these."""
    return Moments(count, mean, covariance * (count - 1))


def rotation(width):
    return torch.linalg.qr(draw(width, width, seed=9)).Q


def test_axis_aligned_gaussians_have_the_closed_form():
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.0]).double()
    gap = torch.tensor([1.0, 2.0, -2.0]).double()
    turn = rotation(3)
    first = gaussian(torch.zeros(3).double(), turn @ a.diag() @ turn.T)
    second = gaussian(turn @ gap, turn @ b.diag() @ turn.T)
    # |gap|^2 + sum (sqrt a - sqrt b)^2 = 9 + (1 + 0 + 9)
    assert frechet_distance(first, second) == pytest.approx(19.0, abs=1e-9)


def test_two_dimensions_have_the_closed_form_of_a_two_by_two_root():
    x, y = correlated(50, 2, 1), correlated(60, 2, 2)
    s, t = (torch.from_numpy(np.cov(z.numpy().T)) for z in (x, y))
    # tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for a 2 x 2 matrix M = S T with eigenvalues above 0.
    product = s @ t
    root = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    expected = (x.mean(0) - y.mean(0)).square().sum() + s.trace() + t.trace() - 2 * root
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("count", [200, 12])  # more clips than features, and fewer
def test_a_set_against_itself_is_zero(count):
    x = 100 * correlated(count, 24, 3)
    scale = float(Moments.of(x).covariance().trace())
    assert frechet_distance(Moments.of(x), Moments.of(x.flip(0))) < 1e-12 * scale


@pytest.mark.parametrize("counts", [(90, 70), (12, 9)])
def test_symmetric_and_blind_to_a_shared_rotation_and_shift(counts):
    x, y = correlated(counts[0], 16, 4), correlated(counts[1], 16, 5)
    turn, shift = rotation(16), draw(16, seed=6)
    value = frechet_distance(Moments.of(x), Moments.of(y))
    assert value > 1
    assert frechet_distance(Moments.of(y), Moments.of(x)) == pytest.approx(value, rel=1e-10)
    moved = frechet_distance(Moments.of(x @ turn + shift), Moments.of(y @ turn + shift))
    assert moved == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("counts", [(80, 60), (10, 7)])  # full rank, and singular
@pytest.mark.parametrize("ddof", [0, 1])
def test_agrees_with_scipys_matrix_square_root(counts, ddof):
    linalg = pytest.importorskip("scipy.linalg")
    x, y = correlated(counts[0], 12, 7), correlated(counts[1], 12, 8)
    s, t = (np.cov(z.numpy().T, ddof=ddof) for z in (x, y))
    # SciPy's root of a singular matrix needs a nudge; its share of the result is far below the tolerance.
    nudge = 1e-12 * np.eye(12)
    root = np.real(linalg.sqrtm((s + nudge) @ (t + nudge)))
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(s) + np.trace(t) - 2 * np.trace(root)
    found = frechet_distance(Moments.of(x), Moments.of(y), ddof=ddof)
    assert found == pytest.approx(expected, rel=1e-9 if counts[0] > 12 else 1e-5)


def test_singular_sets_equal_the_distance_within_the_space_that_they_fill():
    turn = rotation(40)[:3]
    x, y = correlated(200, 3, 11), correlated(200, 3, 12)
    value = frechet_distance(Moments.of(x), Moments.of(y))
    embedded = frechet_distance(Moments.of(x @ turn), Moments.of(y @ turn))
    assert embedded == pytest.approx(value, rel=1e-9)


def test_roots_multiply_to_the_covariance_and_know_its_rank():
    x = correlated(8, 20, 13)
    covariance = Moments.of(x).covariance()
    root = covariance_root(covariance)
    assert root.shape == (20, 7)
    torch.testing.assert_close(root @ root.T, covariance)
    assert covariance_root(torch.zeros(4, 4).double()).shape == (4, 0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_streams_do_not_depend_on_batches_or_their_order(sizes, random):
    x = 1e3 + correlated(sum(sizes) + 2, 5, 14).float()  # far from 0: sums of squares would lose their digits
    pieces = list(x.split([*sizes, 2]))
    random.shuffle(pieces)
    streamed = Moments.empty(5)
    for piece in pieces[::2]:
        streamed.add(piece)
    other = Moments.empty(5)
    for piece in pieces[1::2]:
        other.add(piece)
    streamed.merge(other)
    exact = np.cov(x.double().numpy().T)
    assert streamed.count == len(x)
    np.testing.assert_allclose(streamed.mean.numpy(), x.double().mean(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance().numpy(), exact, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(streamed.covariance(ddof=0).numpy(), np.cov(x.double().numpy().T, ddof=0), atol=1e-9)


def test_merging_moments_of_nothing_changes_nothing():
    x = Moments.of(correlated(9, 4, 15))
    before = frechet_distance(x, Moments.of(correlated(9, 4, 16)))
    x.merge(Moments.empty(4)).add(torch.zeros(0, 4))
    assert x.count == 9
    assert frechet_distance(x, Moments.of(correlated(9, 4, 16))) == before


def test_the_expected_floor_is_what_samples_of_one_gaussian_show():
    scale = torch.linspace(0.2, 3, 6).double()
    floors = [
        frechet_distance(Moments.of(draw(150, 6, seed=s) * scale), Moments.of(draw(100, 6, seed=s + 500) * scale))
        for s in range(60)
    ]
    found = torch.tensor(floors)
    expected = expected_floor(gaussian(torch.zeros(6).double(), scale.square().diag()), 150, 100)
    assert abs(found.mean() - expected) < 3 * found.std() / math.sqrt(60) + 0.02 * expected


def test_the_note_speaks_of_rank_where_clips_are_few_and_names_the_floor():
    few, many = Moments.of(correlated(10, 16, 17)), Moments.of(correlated(40, 16, 18))
    assert rank_note(many, many) is None
    note = rank_note(many, few)
    assert "40 and 10 clips for 16 features" in note and "rank 9" in note
    assert f"{expected_floor(many, 40, 10):.4g}" in note and "Gaussian" in note
    assert "5.25 apart (measured)" in rank_note(few, few, floor=5.25)


def test_extrapolation_takes_the_bias_away():
    differences, plain = [], []
    for seed in range(12):
        x, y = draw(400, 8, seed=seed), draw(400, 8, seed=seed + 50) + 0.25  # true distance 8 * 0.25^2 = 0.5
        fit = frechet_distance_infinity(x, y, generator=torch.Generator().manual_seed(seed))
        differences.append(fit.value - 0.5)
        plain.append(frechet_distance(Moments.of(x), Moments.of(y)) - 0.5)
        assert fit.sizes == (100, 175, 250, 325, 400)
        assert fit.slope > 0 and fit.distances[0] > fit.distances[-1]
        assert fit.distances[-1] == pytest.approx(plain[-1] + 0.5, rel=1e-12)
    left = torch.tensor(differences)
    assert sum(plain) / 12 > 0.1  # expected 2 * 8 / 400 + 9 * 8 / 800 = 0.13
    assert abs(left.mean()) < 3 * left.std() / math.sqrt(12) < 0.09


def test_extrapolation_is_a_function_of_its_seed():
    x, y = draw(60, 3, seed=1), draw(50, 3, seed=2)
    fits = [frechet_distance_infinity(x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert fits[0] == fits[1] != fits[2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Moments.of(torch.zeros(3, 4, 5)), "clips, width"),
        (lambda: Moments.of(torch.tensor([[1.0], [2.0], [math.nan]])), "clip 2"),
        (lambda: frechet_distance(Moments.of(draw(5, 3)), Moments.of(draw(5, 4))), "width 3 and 4"),
        (lambda: frechet_distance(Moments.of(draw(5, 3)), Moments.of(draw(1, 3))), "at least 2"),
        (lambda: Moments.of(draw(5, 3)).covariance(ddof=2), "ddof"),
        (lambda: frechet_distance_infinity(draw(4, 2), draw(4, 2), generator=torch.Generator()), "more clips"),
    ],
)
def test_bad_features_are_refused_by_name(call, words):
    with pytest.raises(BadInput, match=words):
        call()
