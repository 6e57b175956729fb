"""Kernel distance: its definition, that it is unbiased, subsets, weights."""

import math

import pytest
import torch

from longtake.errors import BadInput
from longtake.evaluation.metrics.kernel import kernel_distance, kernel_distance_subsets, weighted_kernel_distance


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    within = [
        sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return sum(within) - 2 * across


@pytest.mark.parametrize("block", [1, 3, 100])
def test_is_its_definition_in_any_blocks(block):
    x, y = draw(7, 4, seed=1), draw(5, 4, seed=2) + 0.5
    assert kernel_distance(x, y, block=block) == pytest.approx(by_definition(x, y), rel=1e-12)
    assert kernel_distance(y, x, block=block) == pytest.approx(by_definition(x, y), rel=1e-12)


def test_blocks_are_never_larger_than_asked(monkeypatch):
    from longtake.evaluation.metrics import kernel

    seen = []
    true = kernel.polynomial_kernel
    monkeypatch.setattr(kernel, "polynomial_kernel", lambda a, b, d: seen.append((len(a), len(b))) or true(a, b, d))
    kernel.kernel_distance(draw(20, 3), draw(11, 3), block=8)
    assert seen and max(max(pair) for pair in seen) == 8


def simulate(shift, clips=6, draws=3000):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(draws, clips, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(draws, clips, 3, generator=generator, dtype=torch.float64) + shift
    return torch.tensor([kernel_distance(a, b) for a, b in zip(x, y, strict=True)], dtype=torch.float64)


def test_unbiased_for_equal_distributions_at_six_clips():
    found = simulate(0.0)
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean()) < 3 * error
    # With diagonals kept it would sit 2 (E k(x, x) - E k(x, y)) / 6 > 2 (8 - 2) / 6 = 2 above 0.
    assert error < 0.05


def test_unbiased_for_a_shift():
    # x.x'/3 + 1 is Gaussian-like with known moments: E k = E[(u.v/D + 1)^3] = 1 + 3 E[s] + 3 E[s^2] + E[s^3], s = u.v/D,
    # for independent u ~ N(a, I), v ~ N(b, I).
    shift, width = 0.6, 3

    def expected_kernel(a, b):
        u, v = torch.full((width,), a).double(), torch.full((width,), b).double()
        dot, uu, vv = float(u @ v), float(u @ u), float(v @ v)
        first = dot
        second = dot**2 + uu + vv + width
        # E[(u.v)^3] for means m, n: given v, u.v ~ N(m.v, |v|^2), so E[(m.v)^3 + 3 (m.v) |v|^2].
        cube = dot**3 + 3 * dot * uu
        mixed = dot * (vv + width) + 2 * dot  # E[(m.v) |v|^2], v ~ N(n, I)
        third = cube + 3 * mixed
        return 1 + 3 * first / width + 3 * second / width**2 + third / width**3

    true = expected_kernel(0, 0) + expected_kernel(shift, shift) - 2 * expected_kernel(0, shift)
    found = simulate(shift)
    error = found.std() / math.sqrt(len(found))
    assert true > 8 * error  # the simulation can tell it from 0
    assert abs(found.mean() - true) < 3 * error


def test_weights_count_clips_but_never_pair_one_with_itself():
    x, y = draw(5, 3, seed=4), draw(6, 3, seed=5) + 1
    once = weighted_kernel_distance(x, y, torch.tensor([[1, 0, 1, 1, 0]]), torch.ones(1, 6))
    assert float(once) == pytest.approx(by_definition(x[[0, 2, 3]], y), rel=1e-12)
    twice = weighted_kernel_distance(x, y, torch.full((1, 5), 2), torch.ones(1, 6))
    assert float(twice) == pytest.approx(by_definition(x, y), rel=1e-12)
    both = weighted_kernel_distance(x, y, torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1]]), torch.ones(2, 6))
    assert both.tolist() == pytest.approx([float(once), float(twice)], rel=1e-12)


def test_subsets_average_the_distance_of_their_clips():
    x, y = draw(30, 4, seed=6), draw(25, 4, seed=7) + 0.8
    found = kernel_distance_subsets(x, y, generator=torch.Generator().manual_seed(1), subsets=80, size=10)
    again = kernel_distance_subsets(x, y, generator=torch.Generator().manual_seed(1), subsets=80, size=10)
    assert found == again and (found.size, found.subsets) == (10, 80)
    assert abs(found.mean - kernel_distance(x, y)) < 4 * found.std / math.sqrt(80)
    whole = kernel_distance_subsets(x, y[:20], generator=torch.Generator(), subsets=3, size=1000)
    assert whole.size == 20
    assert 0 < found.std


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(BadInput, match="width 3 and 4"):
        kernel_distance(draw(5, 3), draw(5, 4))
    with pytest.raises(BadInput, match="at least 2"):
        kernel_distance(draw(1, 3), draw(5, 3))
    with pytest.raises(BadInput, match="0 subsets"):
        kernel_distance_subsets(draw(4, 3), draw(4, 3), generator=torch.Generator(), subsets=0)
