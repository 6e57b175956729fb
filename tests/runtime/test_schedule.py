"""Full steps."""

import pytest

from longtake.errors import BadInput
from longtake.runtime import StepInfo
from longtake.runtime.schedule import Schedule


def test_warmup_then_every_so_many_counted_from_the_last_of_it():
    assert Schedule(4, last=False).steps(13) == [0, 4, 8, 12]
    assert Schedule(4, warmup=3, last=False).steps(13) == [0, 1, 2, 6, 10]
    assert Schedule(1).steps(4) == [0, 1, 2, 3]


def test_the_last_step_is_full_where_it_is_known():
    assert Schedule(4).steps(12) == [0, 4, 8, 11]
    assert not Schedule(4).full(StepInfo(0, 11, None, 0.0, 0.0, None, ""))


def test_a_mask_replaces_the_rest_and_all_behind_it_is_full():
    assert Schedule(7, warmup=3, mask="1001").steps(6) == [0, 3, 4, 5]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"interval": 0}, "interval is 0"),
        ({"warmup": 0}, "warmup is 0"),
        ({"mask": "012"}, "'012'"),
        ({"mask": "01"}, "begin"),
    ],
)
def test_bad_values_are_named(settings, named):
    with pytest.raises(BadInput, match=named):
        Schedule(**{"interval": 2, **settings})
