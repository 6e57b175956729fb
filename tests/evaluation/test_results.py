"""Results: the record gives itself back, two of them are compared only when they were measured in one way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from longtake.errors import BadInput, BadRecipe
from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.results import Curve, Measured, Result, Value, compare, read_result, write_result


def measured(name: str = "fakes", index: str = "1" * 64) -> Measured:
    return Measured(name, index, 3, ("a", "b"), 17, 64, 64, (("bad.mp4", "is empty"),), (("c", "has 3 frames"),), 1)


def result(value: float = 5.0, low: float = 4.5, high: float = 5.5, **changes) -> Result:
    made = Result(
        find_protocol("ours"),
        measured(),
        measured("reals", "2" * 64),
        (
            Value("FVD[scenes-3d]", "fvd", value, low, high, "lower", 0.9, "floor", 2, {"sizes": [2, 3]}, "note"),
            Value("flicker", "flicker", 0.97, 0.96, 0.98, "higher", 0.98, "real", 2),
        ),
        (Curve("drift", "window", (0, 1), (0.1, 0.2), (0.0, 0.1), (0.2, 0.3), (0.1, 0.1)),),
        {"flicker": [0.96, 0.98]},
        {"scenes-3d": {"hash": "3" * 64, "width": 128, "facts": {"own_accuracy": {"shape": 0.99}}}},
        ("not comparable with a paper",),
        200,
        seconds={"decode": 1.0, "look": 3.0, "all": 5.0},
        decoded=2,
        versions={"torch": "2"},
        command="longtake evaluate",
        date="2026-11-20",
    )
    return replace(made, **changes)


def test_a_record_gives_itself_back(tmp_path: Path) -> None:
    write_result(result(), tmp_path / "a.json")
    assert read_result(tmp_path / "a.json") == result()
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["protocol_id"] == find_protocol("ours").id and told["protocol"]["real"]["stride"] == 1
    assert result()["fvd"].value == result()["FVD[scenes-3d]"].value == 5.0
    with pytest.raises(KeyError, match="flicker"):
        result()["fid"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "format"),
        ('{"format": "longtake.evaluation/0"}', "format"),
        ('{"format": "longtake.evaluation/1"}', "not a whole result"),
        (None, "cannot be read"),
    ],
)
def test_something_else_than_a_result(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadRecipe, match=words):
        read_result(tmp_path / "a.json")


def test_an_unknown_switch_in_a_record_is_named(tmp_path: Path) -> None:
    told = json.loads(result().to_json())
    told["protocol"]["real"]["strid"] = 3
    (tmp_path / "a.json").write_text(json.dumps(told))
    with pytest.raises(BadRecipe, match="'stride'"):
        read_result(tmp_path / "a.json")


def test_other_protocols_refuse_to_be_compared_and_say_why() -> None:
    other = result(protocol=find_protocol("ours", {"real.stride": 3, "network_hash": "abc"}))
    with pytest.raises(BadInput) as error:
        compare(result(), other)
    assert "real.stride is 1 and 3" in str(error.value) and "network_hash is none and abc" in str(error.value)
    assert "--force" in str(error.value) and "\n" not in str(error.value)
    forced = compare(result(), other, force=True)
    assert len(forced.differences) == 2 and [row.name for row in forced.rows] == ["FVD[scenes-3d]", "flicker"]


def test_other_real_clips_refuse_too() -> None:
    other = result(real=measured("others", "5" * 64))
    with pytest.raises(BadInput, match=r"real clips are 2 of reals .* and 2 of others"):
        compare(result(), other)
    moved = result(real=measured("the same under another name", "2" * 64))
    assert compare(result(), moved).differences == ()


def test_a_difference_counts_when_intervals_are_apart() -> None:
    verdicts = {
        (3.0, 2.5, 3.5): "better",
        (7.0, 6.5, 7.5): "worse",
        (5.5, 5.0, 6.0): "no difference",
    }
    for (value, low, high), verdict in verdicts.items():
        assert compare(result(), result(value, low, high)).rows[0].verdict == verdict
    blunt = result(values=(replace(result().values[1], low=None), result().values[0]))
    assert compare(result(), blunt).rows[1].verdict == ""


def test_nothing_in_common() -> None:
    with pytest.raises(BadInput, match="no number in common"):
        compare(result(), result(values=(Value("PSNR", "psnr", 30.0),)))
