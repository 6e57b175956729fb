"""Scoring: who is compared with whom, and what an object that was not found costs."""

import pytest

from longtake.evaluation.readback import ObjectReading, Reading, score_readings


def reading(*things: tuple[str, str, str], background: str = "plain", camera: str = "static") -> Reading:
    return Reading(tuple(ObjectReading(*thing, presence=1.0) for thing in things), background, None, camera)


def wanted(*things: tuple[str, str, str], background: str = "plain", camera: str = "static") -> dict:
    keys = ("colour", "shape", "motion")
    return {
        "objects": [dict(zip(keys, thing, strict=True)) for thing in things],
        "background": background,
        "camera": camera,
    }


def test_the_order_of_objects_does_not_matter() -> None:
    red, blue = ("red", "ball", "spin"), ("blue", "cube", "still")
    assert set(score_readings([reading(red, blue)], [wanted(blue, red)]).accuracy.values()) == {1.0}


def test_colour_decides_who_is_who() -> None:
    # Swapping the two would make both shapes right, but then both colours were wrong.
    score = score_readings(
        [reading(("red", "cube", "still"), ("blue", "ball", "still"))],
        [wanted(("red", "ball", "still"), ("blue", "cube", "still"))],
    )
    assert score.accuracy["colour"] == 1.0
    assert score.accuracy["shape"] == 0.0


def test_a_missing_object_is_wrong_in_everything() -> None:
    score = score_readings(
        [reading(("red", "ball", "spin"))], [wanted(("red", "ball", "spin"), ("blue", "cube", "fall"))]
    )
    assert score.right["colour"] == score.right["shape"] == score.right["motion"] == 1
    assert score.total["colour"] == 2


def test_background_and_camera_count_once_a_clip() -> None:
    thing = ("red", "ball", "spin")
    score = score_readings(
        [reading(thing), reading(thing, background="sky", camera="pan-left")],
        [wanted(thing), wanted(thing, background="checker", camera="pan-left")],
    )
    assert score.accuracy["background"] == 0.5
    assert score.accuracy["camera"] == 1.0


def test_as_many_readings_as_prompts() -> None:
    with pytest.raises(ValueError):
        score_readings([reading(("red", "ball", "spin"))], [])
