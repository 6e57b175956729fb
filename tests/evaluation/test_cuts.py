"""Cuts: which frames of which videos, independent of the order of files, and what cannot be cut."""

from collections import Counter

import pytest
import torch

from longtake.errors import BadData
from longtake.evaluation.cuts import cut
from longtake.evaluation.protocol import PRESETS, Side
from longtake.evaluation.sources import TensorSource, Video


class Listed:
    """Videos of given lengths without pixels."""

    def __init__(self, lengths: dict[str, int], sizes: dict[str, tuple[int, int]] | None = None) -> None:
        self.name, self.problems = "listed", (("damaged.mp4", "is damaged"),)
        sizes = sizes or {}
        self.videos = tuple(Video(n, t, *sizes.get(n, (8, 8)), 8.0) for n, t in lengths.items())

    def read(self, number, frames):
        raise AssertionError("nothing is decoded to choose clips")

    def digest(self, number, frames):
        return f"{self.videos[number].name}:{frames}"


def chosen(source: Listed, side: Side, seed: int = 0) -> set:
    return {(source.videos[one.video].name, one.frames) for one in cut(source, side, seed).clips}


def test_windows_from_the_start() -> None:
    source = Listed({"a": 9, "b": 4})
    assert chosen(source, Side(frames=3)) == {("a", (0, 1, 2)), ("b", (0, 1, 2))}
    assert chosen(source, Side(frames=3, windows=9)) == {
        ("a", (0, 1, 2)),
        ("a", (3, 4, 5)),
        ("a", (6, 7, 8)),
        ("b", (0, 1, 2)),
    }
    assert chosen(source, Side(frames=2, stride=3)) == {("a", (0, 3)), ("b", (0, 3))}
    assert chosen(source, Side(frames=3, start="middle")) == {("a", (3, 4, 5)), ("b", (0, 1, 2))}
    assert len(chosen(source, Side(frames=3, start="every"))) == 7 + 2


def test_random_windows_stay_inside_and_belong_to_the_video() -> None:
    side = Side(frames=4, stride=2, start="random")
    many = Listed({f"{i:03d}": 20 for i in range(200)})
    drawn = chosen(many, side)
    starts = Counter(frames[0] for _, frames in drawn)
    assert set(starts) == set(range(14)) and max(starts.values()) < 30
    assert all(frames == tuple(range(frames[0], frames[0] + 7, 2)) for _, frames in drawn)
    fewer = Listed(dict(list({f"{i:03d}": 20 for i in range(200)}.items())[100:]))
    assert chosen(fewer, side) <= drawn  # files that go away do not move the windows of others
    assert chosen(many, side, seed=1) != drawn


def test_the_order_of_files_changes_nothing() -> None:
    lengths = {f"{i:03d}": 10 + i % 5 for i in range(60)}
    turned = dict(reversed(lengths.items()))
    for side in (Side(frames=3, count=20, select="random", start="random"), Side(frames=3, count=20)):
        one, other = cut(Listed(lengths), side), cut(Listed(turned), side)
        assert one.index_hash == other.index_hash and len(one.clips) == 20
        assert [c.digest for c in one.clips] == [c.digest for c in other.clips]


def test_selection() -> None:
    source = Listed({f"{i:03d}": 5 for i in range(40)})
    first = cut(source, Side(frames=5, count=10))
    assert {first.name(i) for i in range(10)} == {f"{i:03d}" for i in range(10)} and first.more == 30
    random = {name for name, _ in chosen(source, Side(frames=5, count=10, select="random"))}
    assert len(random) == 10 and random != {f"{i:03d}" for i in range(10)}
    assert len(chosen(source, Side(frames=5, count=10, select="all"))) == 40
    mirrored = cut(source, Side(frames=5, count=10, mirror=True)).clips
    assert len(mirrored) == 20 and sum(one.mirrored for one in mirrored) == 10


def test_every_window_counts_so_long_videos_weigh_more() -> None:
    source = Listed({"long": 1000, **{f"{i:03d}": 17 for i in range(10)}})
    tats = PRESETS["tats"].real
    names = Counter(name for name, _ in chosen(source, Side(frames=16, start="every", select="random", count=200)))
    assert names["long"] > 150 and tats.start == "every"


def test_short_and_damaged_videos_are_listed() -> None:
    source = Listed({"a": 48, "b": 47, "c": 500})
    found = cut(source, PRESETS["latte-ucf101"].real)
    assert [name for name, _ in found.short] == ["b"] and "47 frames" in found.short[0][1]
    assert found.problems == (("damaged.mp4", "is damaged"),) and len(found.clips) == 2


def test_all_too_short_is_one_line() -> None:
    with pytest.raises(BadData) as error:
        cut(Listed({"a": 20, "b": 30}), PRESETS["latte-ucf101"].real, protocol="latte-ucf101")
    words = ("latte-ucf101", "48 frames", "b, has 30", "--set frames=10 --set real.shortest=30")
    assert all(word in str(error.value) for word in words)


def test_mixed_resolutions_are_refused_where_pictures_stay_as_they_are() -> None:
    source = Listed({"a": 20, "b": 20, "c": 20}, {"c": (16, 24)})
    with pytest.raises(BadData) as error:
        cut(source, Side(), what="fake")
    assert all(word in str(error.value) for word in ("8x8 (a)", "24x16 (c)", "fake.size", "8")), error.value
    assert cut(source, Side(height=8, width=8)).size == (8, 8)


def test_the_order_of_rows_is_mixed() -> None:
    """Its halves are two random halves of the clips, so their distance is a floor."""
    pixels = torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1, 1).expand(64, 3, 2, 4, 4)
    found = cut(TensorSource(pixels), Side(frames=2))
    half = [one.video for one in found.clips[:32]]
    assert 16 < sum(half) / 32 < 47 and half != sorted(half)
