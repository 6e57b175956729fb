"""Forecasts against polynomials that are known."""

import pytest
import torch

from longtake.runtime.calibrators import BASES, forecast, known, remember

UNEVEN = (0.0, 1.0, 2.0, 6.0)
BASE = pytest.mark.parametrize("basis", BASES)


def error(basis, order, polynomial, places=UNEVEN, at=9.0):
    """Largest error of a forecast, in float64."""
    kept, one = {}, torch.linspace(0.5, 2, 7, dtype=torch.float64)
    for place in places:
        remember(kept, place, [one * polynomial(place)], order, basis, None)
    return (forecast(kept, at)[0] - one * polynomial(at)).abs().max().item()


@BASE
def test_order_0_holds_the_last_value_bit_for_bit(basis):
    kept, values = {}, [[torch.randn(3, 4).bfloat16(), torch.randn(2)] for _ in range(3)]
    for place, pair in enumerate(values):
        remember(kept, place, pair, 0, basis, None)
        made = forecast(kept, place + 5)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(made, pair, strict=True))


@BASE
@pytest.mark.parametrize("order", range(4))
def test_constants_are_exact_at_any_order(basis, order):
    assert error(basis, order, lambda s: 3.7) < 1e-12


@BASE
@pytest.mark.parametrize("order", [1, 2, 3])
def test_lines_are_exact_from_order_1_on(basis, order):
    assert error(basis, order, lambda s: 2 - 0.3 * s) < 1e-10
    assert error(basis, 0, lambda s: 2 - 0.3 * s) > 0.5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_newton_is_exact_for_its_order_at_uneven_places_and_no_further(order):
    assert error("newton", order, lambda s: (s / 3) ** order - s + 1) < 1e-10
    assert error("newton", order, lambda s: (s / 3) ** (order + 1)) > 1e-2


def test_the_published_form_is_not_exact_for_squares():
    """Backward differences are no derivatives in the middle: s^2 at equal distances N is missed by N * k at distance k."""
    assert error("taylor", 2, lambda s: s**2, (0.0, 4.0, 8.0), 10.0) == pytest.approx(2 * 4 * 2.0, rel=1e-9)
    assert error("newton", 2, lambda s: s**2, (0.0, 4.0, 8.0), 10.0) < 1e-10


def test_the_published_recursion_by_hand():
    """F1 = (F0 - F0') / d and F2 = (F1 - F1') / d with the last distance alone, weighted 1, k and k^2 / 2."""
    y = dict(zip((0, 1, 5), torch.randn(3, 6, dtype=torch.float64), strict=True))
    kept = {}
    for place, value in y.items():
        remember(kept, place, [value], 2, "taylor", None)
    before, now = y[1] - y[0], (y[5] - y[1]) / 4
    expected = y[5] + 3 * now + 9 / 2 * (now - before) / 4
    torch.testing.assert_close(forecast(kept, 8)[0], expected, atol=1e-12, rtol=0)


@BASE
def test_orders_come_as_values_do(basis):
    """After one full step every order holds; after two, order 3 is a line."""
    kept, y = {}, torch.randn(2, 5)
    remember(kept, 0, [y[0]], 3, basis, None)
    assert torch.equal(forecast(kept, 2)[0], y[0])
    remember(kept, 1, [y[1]], 3, basis, None)
    torch.testing.assert_close(forecast(kept, 3)[0], y[1] + 2 * (y[1] - y[0]))


@BASE
def test_the_same_place_twice_counts_once(basis):
    kept = {}
    for value in (5.0, 7.0):
        remember(kept, 0, [torch.tensor([value])], 1, basis, None)
    assert forecast(kept, 3)[0].item() == 7
    remember(kept, 1, [torch.tensor([8.0])], 1, basis, None)
    assert forecast(kept, 3)[0].item() == pytest.approx(10)


@BASE
def test_places_may_fall_as_timesteps_do(basis):
    assert error(basis, 1, lambda t: 0.01 * t, (1000.0, 800.0, 600.0), 300.0) < 1e-10


@BASE
def test_kept_in_the_dtype_asked_for_and_summed_wider(basis):
    kept = {}
    for place in range(2):
        remember(kept, place, [torch.full((3,), 1.0 + place)], 1, basis, torch.bfloat16)
    tensors = [t for group in (kept.get("factors") or [p[1] for p in kept["points"]]) for t in group]
    assert {t.dtype for t in tensors} == {torch.bfloat16}
    assert forecast(kept, 2)[0].dtype == torch.float32
    assert forecast(kept, 2)[0].tolist() == [3.0] * 3


def test_known_once_anything_was_noted():
    kept = {}
    assert not known(kept)
    remember(kept, 0, [torch.randn(2)], 1, "taylor", None)
    assert known(kept)
