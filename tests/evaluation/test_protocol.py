"""Protocols: the published ones as they are written down, changes, files, differences in words."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from longtake.errors import BadInput, BadRecipe, UnknownName
from longtake.evaluation.protocol import PRESETS, Protocol, Side, differences, find_protocol, switches


def test_the_published_settings() -> None:
    latte = PRESETS["latte-ucf101"]
    assert (latte.real.frames, latte.real.stride, latte.real.span) == (16, 3, 48)
    assert (latte.fake.stride, latte.fake.start, latte.fake.mp4) == (1, "first", 5)
    assert latte.real.select == latte.fake.select == "random" and latte.real.count == latte.fake.count == 2048
    assert (latte.real.jpeg, latte.real.resize, latte.real.crop, latte.real.size) == (
        75,
        "lanczos",
        "square",
        (256, 256),
    )
    short, long, sparse = (PRESETS[f"stylegan-v{tail}"] for tail in ("", "-128f", "-128f-subsample8f"))
    assert (short.real.span, long.real.span, sparse.real.span) == (16, 128, 128)
    assert (sparse.real.frames, sparse.real.stride, long.fake.frames) == (16, 8, 128)
    assert short.real.select == "first" and short.real.start == "random" and short.fake.start == "first"
    tats = PRESETS["tats"]
    assert (tats.real.start, tats.real.split, tats.real.size) == ("every", "train", (128, 128))
    assert tats.real.rounding == "truncate" and tats.covariance_divisor == "N-1" and latte.covariance_divisor == "N"
    assert not any(p.real.mirror or p.fake.mirror for p in PRESETS.values())
    assert {p.network for name, p in PRESETS.items() if name != "ours"} == {"i3d"}


def test_every_switch_changes_the_id_and_the_name_does_not() -> None:
    ours = PRESETS["ours"]
    other = {
        "split": "train",
        "start": "random",
        "select": "all",
        "crop": "none",
        "resize": "lanczos",
        "rounding": "truncate",
        "mirror": True,
        "antialias": False,
        "height": 8,
        "width": 8,
    }
    for name in Side.__dataclass_fields__:
        changes = {name: other.get(name, 7)} | ({"width": 8, "height": 8} if name in ("height", "width") else {})
        for side in ("real", "fake"):
            changed = replace(ours, **{side: replace(getattr(ours, side), **changes)})
            assert changed.id != ours.id and f"{side}.{name}" in " ".join(differences(ours, changed))
    for change in ({"network_hash": "a"}, {"seed": 1}, {"dtype": "float64"}, {"covariance_divisor": "N"}):
        assert replace(ours, **change).id != ours.id
    assert differences(ours, replace(ours, name="mine")) == []
    assert replace(ours, name="mine").id.split("-")[-1] == ours.id.split("-")[-1]


def test_differences_in_words() -> None:
    changed = find_protocol("ours", {"real.stride": 3, "fake.jpeg": 75, "mirror": True})
    assert differences(PRESETS["ours"], changed) == [
        "real.stride is 1 and 3",
        "real.mirror is off and on",
        "fake.mirror is off and on",
        "fake.jpeg is none and 75",
    ]
    assert changed.name == "ours+" and find_protocol("ours", {"real.stride": "1"}).name == "ours"


def test_changes_from_a_command_line_are_words() -> None:
    changed = find_protocol("latte-ucf101", {"size": "128x96", "real.jpeg": "none", "antialias": "false", "seed": "3"})
    assert changed.real.size == changed.fake.size == (96, 128)
    assert changed.real.jpeg is None and changed.fake.jpeg == 75 and not changed.real.antialias and changed.seed == 3
    assert find_protocol("tats", {"size": "64"}).fake.size == (64, 64)
    assert find_protocol("tats", {"real.size": "none"}).real.size is None


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_changes_a_preset(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"taichi.{suffix}"
    content = {"base": "latte-ucf101", "real": {"stride": 6, "shortest": 96}, "frames": 8, "network": "scenes-3d"}
    path.write_text(json.dumps(content))
    found = find_protocol(path)
    assert (found.name, found.real.stride, found.real.frames, found.fake.stride) == ("taichi", 6, 8, 1)
    assert found.network == "scenes-3d" and found.real.jpeg == 75


def test_a_record_of_a_protocol_gives_it_back() -> None:
    for protocol in PRESETS.values():
        assert Protocol.from_json(json.loads(json.dumps(asdict(protocol)))) == protocol
    assert len(switches(Protocol())) == 2 * len(Side.__dataclass_fields__) + 7


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"strid": 3}, BadRecipe, "'stride'"),
        ({"real.resize": "bilinaer"}, UnknownName, "'bilinear'"),
        ({"stride": "many"}, BadRecipe, "'many'"),
        ({"real": 3}, BadRecipe, "real is 3"),
        ({"stride": 0}, BadInput, "stride is 0"),
        ({"jpeg": 101}, BadInput, "jpeg is 101"),
        ({"mp4": 60}, BadInput, "mp4 is 60"),
        ({"height": 8}, BadInput, "both"),
        ({"size": "big"}, BadRecipe, "'big'"),
        ({"mirror": "perhaps"}, BadRecipe, "perhaps"),
        ({"covariance_divisor": "N-2"}, UnknownName, "N-1"),
    ],
)
def test_a_bad_switch_is_named(changes: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        find_protocol("ours", changes)


def test_an_unknown_protocol_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="'stylegan-v'"):
        find_protocol("stylgan-v")
    (tmp_path / "a.yaml").write_text("base: latte\n")
    with pytest.raises(UnknownName, match="'latte-ucf101'"):
        find_protocol(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(BadRecipe, match="list"):
        find_protocol(tmp_path / "b.yaml")
