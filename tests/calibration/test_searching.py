"""The search against a search of everything, on made-up costs and likenesses: what it finds and how little it tries."""

from itertools import product

import pytest

from longtake.calibration.searching import Side, search, space_of
from longtake.methods import METHODS, method_class
from longtake.runtime.knobs import Knob

LEVEL = Knob("level", (2, 3, 4, 5, 6, 7, 8))
KIND = Knob("kind", ("a", "b", "c"), ordered=False)


def run(space, side, *, bold):
    """Settings in the order in which they were tried, and those that fit."""
    tried = []

    def once(setting):
        assert setting not in [one for one, _ in tried]
        tried.append((setting, side(setting)))
        return tried[-1][1]

    search(space, once, bold=bold)
    return [one for one, _ in tried], [one for one, where in tried if where is Side.FITS]


def all_settings(knobs):
    return [dict(zip([k.name for k in knobs], v, strict=True)) for v in product(*(k.values for k in knobs))]


@pytest.mark.parametrize("limit", range(1, 9))
def test_the_boldest_that_is_alike_enough_is_found_in_three_trials(limit):
    space = space_of([LEVEL], {})
    tried, fits = run(space, lambda s: Side.FITS if s["level"] <= limit else Side.BOLD, bold=True)
    assert max((one["level"] for one in fits), default=None) == (min(limit, 8) if limit > 1 else None)
    assert len(tried) <= 3 == space.most


@pytest.mark.parametrize("limit", range(2, 10))
def test_the_most_careful_that_is_cheap_enough_is_found_in_three_trials(limit):
    tried, fits = run(space_of([LEVEL], {}), lambda s: Side.FITS if s["level"] >= limit else Side.CAREFUL, bold=False)
    assert min((one["level"] for one in fits), default=None) == (limit if limit < 9 else None)
    assert len(tried) <= 3


@pytest.mark.parametrize("limits", list(product((1, 2, 4, 8), repeat=3)))
def test_every_alternative_is_given_its_chance_to_be_bolder(limits):
    limit = dict(zip("abc", limits, strict=True))
    space = space_of([KIND, LEVEL], {"kind": "b"})
    assert space.free[0] == {"kind": "b"}
    tried, fits = run(space, lambda s: Side.FITS if s["level"] <= limit[s["kind"]] else Side.BOLD, bold=True)
    assert max((one["level"] for one in fits), default=1) == max(limits)
    assert len(tried) <= space.most == 3 + 2 * 4


def test_alternatives_are_compared_where_the_cost_is_met():
    space = space_of([LEVEL, KIND], {"kind": "a"})
    tried, fits = run(space, lambda s: Side.FITS if s["level"] >= 4 else Side.CAREFUL, bold=False)
    assert {"level": 4, "kind": "a"} in fits and {"level": 4, "kind": "b"} in fits and {"level": 4, "kind": "c"} in fits
    assert len(tried) == 3 + 2


def test_settings_that_cannot_be_run_at_the_bold_end_do_not_hide_those_that_fit():
    """As of delta-dit, where no number of blocks gives a large speedup at a small interval."""

    def side(setting):
        top = {"a": 3, "b": 6, "c": 8}[setting["kind"]]
        if setting["level"] > top:
            return Side.BOLD  # an error
        return Side.FITS if setting["level"] >= 5 else Side.CAREFUL

    _, fits = run(space_of([LEVEL, KIND], {"kind": "a"}), side, bold=False)
    assert {"level": 5, "kind": "b"} in fits


def test_two_ordered_knobs_move_together_and_then_each_alone():
    knobs = [Knob("low", (0, 1, 2, 3, 4, 5, 6)), Knob("high", (0, 1, 2, 3))]
    space = space_of(knobs, {})
    tried, fits = run(space, lambda s: Side.FITS if s["low"] + 3 * s["high"] <= 10 else Side.BOLD, bold=True)
    found = max(fits, key=space.boldness)
    beyond = [
        {**found, name: found[name] + 1}
        for name in found
        if found[name] + 1 in {"low": range(7), "high": range(4)}[name]
    ]
    assert beyond and all(one["low"] + 3 * one["high"] > 10 for one in beyond)  # no knob can go further by itself
    assert len(tried) <= space.most < len(all_settings(knobs)) / 2
    _, careful = run(space, lambda s: Side.FITS if s["low"] + 3 * s["high"] >= 5 else Side.CAREFUL, bold=False)
    found = min(careful, key=space.boldness)
    back = [{**found, name: found[name] - 1} for name in found if found[name]]
    assert all(one["low"] + 3 * one["high"] < 5 for one in back)


def test_settings_that_do_nothing_at_the_careful_end_are_passed_by():
    side = {2: Side.CAREFUL, 3: Side.CAREFUL, 4: Side.FITS, 5: Side.FITS}
    _, fits = run(space_of([LEVEL], {}), lambda s: side.get(s["level"], Side.BOLD), bold=True)
    assert max(one["level"] for one in fits) == 5


def test_nothing_to_search_is_one_trial():
    tried, fits = run(space_of([], {}), lambda s: Side.FITS, bold=True)
    assert tried == fits == [{}] and space_of([], {}).boldness({}) == 0


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).knobs])
@pytest.mark.parametrize("bold", [True, False])
def test_no_method_needs_more_than_sixteen_trials(name, bold):
    kind = method_class(name)
    space = space_of(kind.knobs, kind().config())
    assert space.most <= 16
    for share in (0.0, 0.3, 0.6, 1.0):
        limit = (lambda s, at=share: space.boldness(s) <= at) if bold else (lambda s, at=share: space.boldness(s) >= at)
        other = Side.BOLD if bold else Side.CAREFUL
        tried, fits = run(space, lambda s, fit=limit, no=other: Side.FITS if fit(s) else no, bold=bold)
        assert len(tried) <= space.most and fits
