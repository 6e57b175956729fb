"""Methods as they are written on the command line."""

import pytest

from longtake.errors import BadInput, UnknownName
from longtake.methods import METHODS, as_methods, method_class, parse_method, parse_stack
from longtake.methods.caches.delta_dit import DeltaDiT
from longtake.methods.caches.taylorseer import TaylorSeer
from longtake.methods.guidance.interval import GuidanceInterval
from longtake.methods.observers.attention_maps import AttentionMaps


def test_a_name_alone_has_the_defaults():
    assert parse_method("taylorseer") == TaylorSeer()
    assert parse_method(" delta-dit: ") == DeltaDiT()


def test_settings_have_their_own_kinds():
    text = "taylorseer:interval=7,order=2,granularity=block,last_full=no"
    assert parse_method(text) == TaylorSeer(7, 2, granularity="block", last_full=False)
    assert parse_method("cfg-interval: low=0.2 , high=1") == GuidanceInterval(0.2, 1.0)
    assert parse_method("attention-maps:heads=True,steps=0/3") == AttentionMaps(heads=True, steps="0/3")
    assert type(parse_method("cfg-interval:high=1").high) is float


def test_a_stack_is_joined_by_plus():
    methods = [TaylorSeer(4), GuidanceInterval()]
    assert parse_stack("taylorseer:interval=4 + cfg-interval") == methods
    assert as_methods([TaylorSeer(4), "cfg-interval"]) == as_methods(["taylorseer:interval=4+cfg-interval"]) == methods


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_there_and_writes_itself_so_that_it_can_be_read(name):
    kind = method_class(name)
    assert kind.name == name
    assert parse_method(str(kind())) == kind()
    assert str(kind()) == name


@pytest.mark.parametrize(
    "method", [TaylorSeer(3, mask="1010", last_full=False), DeltaDiT(speedup=1.25, store="active")]
)
def test_what_is_written_is_read_back(method):
    assert parse_method(str(method)) == method


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("taylorser", "'taylorseer'"),
        ("delta_dit", "'delta-dit'"),
        ("taylorseer:intervall=3", "'interval'"),
        ("taylorseer+minmax", "'minmax8'"),
        ("zzz", "Known: "),
        ("taylorseer+", "no method is called ''"),
    ],
)
def test_unknown_names_bring_the_nearest_in_one_line(text, named):
    with pytest.raises(UnknownName, match=named) as caught:
        parse_stack(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("taylorseer:interval=many", "interval is 'many'; expected a int"),
        ("taylorseer:interval", "write interval=VALUE"),
        ("taylorseer:last_full=maybe", "true or false"),
        ("taylorseer:order=9", "order is 9"),
        ("cfg-interval:low=x", "expected a float"),
    ],
)
def test_bad_values_are_named_in_one_line(text, named):
    with pytest.raises(BadInput, match=named) as caught:
        parse_method(text)
    assert "\n" not in str(caught.value)
