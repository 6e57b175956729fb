import pytest

from longtake.training.recipe import ScheduleRecipe
from longtake.training.schedule import rate_share


def shares(steps, **fields):
    return [rate_share(step, steps, ScheduleRecipe(**fields)) for step in range(steps)]


@pytest.mark.parametrize("name", ["cosine", "constant", "trapezoid"])
def test_warm_up_is_a_straight_line_that_never_starts_at_zero(name):
    rising = shares(100, name=name, warmup=4, decay=0.1)[:5]
    assert rising == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_is_half_way_in_the_middle_and_near_the_floor_at_the_end():
    falling = shares(101, name="cosine", warmup=1, floor=0.2)
    assert falling[51] == pytest.approx(0.6)
    assert falling[1:] == sorted(falling[1:], reverse=True)
    assert falling[-1] == pytest.approx(0.2, abs=1e-3)
    assert falling[-1] > 0.2  # the last step still learns


def test_trapezoid_falls_over_its_last_share_only():
    falling = shares(100, name="trapezoid", warmup=0, decay=0.25)
    assert falling[:76] == [1.0] * 76
    assert falling[76:] == pytest.approx([(100 - step) / 25 for step in range(76, 100)])


def test_constant_stays():
    assert set(shares(50, name="constant", warmup=0)) == {1.0}
