"""What is searched and on which prompts: held settings, values of one's own, prompts that are held out."""

import pytest

from longtake.calibration.asking import find_subject, split_prompts
from longtake.comparison.asking import find_prompts
from longtake.errors import BadData, BadInput, UnknownName
from longtake.methods import parse_method
from longtake.methods.caches.taylorseer import TaylorSeer


def test_settings_that_are_written_are_held_and_the_others_searched():
    subject = find_subject("taylorseer:order=1,granularity=block")
    assert [knob.name for knob in subject.knobs] == ["interval"]
    assert subject.at({"interval": 7}) == TaylorSeer(7, 1, granularity="block")
    assert [knob.name for knob in find_subject(TaylorSeer(interval=3)).knobs] == ["order"]
    assert find_subject("taylorseer:interval=5,order=1").knobs == ()


def test_a_setting_is_written_with_the_value_of_every_knob():
    subject = find_subject("taylorseer:granularity=block")
    text = subject.written({"interval": 5, "order": 1})
    assert text == "taylorseer:granularity=block,interval=5,order=1"
    assert parse_method(text) == subject.at({"interval": 5, "order": 1})
    assert find_subject("taylorseer:interval=5,order=1").written({}) == "taylorseer"


def test_values_of_ones_own_take_the_place_of_the_declared_ones():
    told = find_subject("cfg-interval", ["low=0.1/0.2", "high=0.9"])
    assert {knob.name: knob.values for knob in told.knobs} == {"low": (0.1, 0.2), "high": (0.9,)}
    assert find_subject("cfg-interval", {"low": (0.1, 0.2), "high": [0.9]}) == told


@pytest.mark.parametrize(
    ("method", "knobs", "error", "words"),
    [
        ("taylorser", (), UnknownName, "'taylorseer'"),
        ("taylorseer:intervall=3", (), UnknownName, "'interval'"),
        ("taylorseer+cfg-interval", (), BadInput, "2 methods: calibrate one at a time"),
        ("apg", (), BadInput, "apg declares no knobs, so there is nothing to calibrate in it; use taylorseer"),
        ("taylorseer", ["intervall=2/3"], UnknownName, "no knob 'intervall'. Did you mean 'interval'"),
        ("taylorseer", ["warmup=2"], UnknownName, "no knob 'warmup'"),
        ("taylorseer", ["interval"], BadInput, "is not NAME=VALUE/VALUE"),
        ("taylorseer", ["interval=/"], BadInput, "is not NAME=VALUE/VALUE"),
        ("taylorseer", {"interval": ()}, BadInput, "interval has no values"),
        ("taylorseer", ["interval=2/2"], BadInput, "a value twice"),
        ("taylorseer", ["interval=2/many"], BadInput, "interval is 'many'"),
        ("taylorseer", ["order=7"], BadInput, "order is 7"),
        ("taylorseer:interval=4", ["interval=2/3"], BadInput, "held by 'taylorseer:interval=4'"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(method, knobs, error, words):
    with pytest.raises(error) as caught:
        find_subject(method, knobs)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- prompts


def test_held_out_scenes_are_others_than_those_that_are_calibrated_on():
    halves = split_prompts("3")
    assert halves.calibration == find_prompts(3).texts and len(halves.held_out) == 3
    assert not set(halves.calibration) & set(halves.held_out)
    assert len(split_prompts(2, "5").held_out) == 5


def test_of_prompts_that_are_given_the_last_are_held_out(tmp_path):
    assert split_prompts(["a", "b", "c", "d", "e"]).held_out == ("d", "e")
    assert split_prompts(["a", "b", "c"], 2).calibration == ("a",)
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    assert split_prompts(tmp_path / "p.txt").held_out == ("two",)
    assert split_prompts(2, str(tmp_path / "p.txt")).held_out == ("one", "two")
    assert split_prompts(["a"], ["b"]).calibration == ("a",)


@pytest.mark.parametrize(
    ("prompts", "held_out", "error", "words"),
    [
        (0, None, BadInput, "prompts is 0"),
        (2, -1, BadInput, "held-out prompts is -1"),
        (True, None, BadInput, "prompts is True"),
        (["a"], None, BadInput, "0 of 1 prompts cannot be held out: give at least two"),
        (["a", "b"], 2, BadInput, "2 of 2 prompts cannot be held out"),
        (["a", "b"], ["b"], BadInput, "prompt 'b' is to be calibrated on and held out"),
        ([], None, BadInput, "no prompts"),
        ("gone.txt", None, BadData, "gone.txt"),
    ],
)
def test_prompts_that_cannot_be_split_are_said(prompts, held_out, error, words):
    with pytest.raises(error, match=words):
        split_prompts(prompts, held_out)
