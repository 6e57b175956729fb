"""What an index pass learns of each video, packed small and kept in a JSON file if wanted.

Facts stay in memory for every video of a set and travel to the loader's processes, so runs of numbers (time stamps, key
frames) are stored as first, step, count wherever they are even. The file keeps them under path, size and time of change.
"""

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from longtake.video import VideoIndex, write_bytes

STORE_FORMAT = "longtake.videos/1"


@dataclass(frozen=True)
class Numbers:
    """A tuple of integers as first, step, count where that says it, else as 8 bytes each."""

    first: int
    step: int
    count: int
    listed: array | None = None

    @staticmethod
    def pack(values: Sequence[int]) -> "Numbers":
        """Keep the values in as little as possible; `values` inverts it."""
        first, step = (values[0] if values else 0), (values[1] - values[0] if len(values) > 1 else 1)
        even = step != 0 and all(b - a == step for a, b in zip(values, values[1:], strict=False))
        return Numbers(first, step, len(values), None if even else array("q", values))

    @property
    def values(self) -> tuple[int, ...]:
        """The integers."""
        if self.listed is not None:
            return tuple(self.listed)
        return tuple(range(self.first, self.first + self.step * self.count, self.step))


@dataclass(frozen=True)
class VideoFacts:
    """What the index pass learns of one video.

    Attributes:
        frames: their number. fps: the mean where it varies. height, width: of the upright picture.
        numbers, others: the fields of its `VideoIndex`; empty for a folder of frames.
    """

    frames: int
    fps: float
    height: int
    width: int
    numbers: dict[str, Numbers] | None = None
    others: dict[str, Any] | None = None

    @staticmethod
    def of(index: VideoIndex) -> "VideoFacts":
        """Pack an index."""
        values = {field.name: getattr(index, field.name) for field in fields(VideoIndex)}
        numbers = {name: Numbers.pack(value) for name, value in values.items() if isinstance(value, tuple)}
        others = {name: value for name, value in values.items() if not isinstance(value, tuple)}
        return VideoFacts(len(index.pts), index.fps, index.height, index.width, numbers, others)

    @property
    def index(self) -> VideoIndex | None:
        """The index for a `VideoReader`; None for a folder of frames."""
        if self.numbers is None or self.others is None:
            return None
        return VideoIndex(**self.others, **{name: packed.values for name, packed in self.numbers.items()})

    @property
    def seconds(self) -> Sequence[float]:
        """Time of each frame, the first at 0."""
        index = self.index
        return index.seconds if index else [number / self.fps for number in range(self.frames)]


def stamp(path: Path) -> list[int]:
    """Return size and time of change of a file, empty if it is not there; facts are valid for one stamp."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def to_json(facts: VideoFacts | str) -> dict[str, Any]:
    """Write facts, or the reason why there are none, as plain JSON."""
    if isinstance(facts, str):
        return {"problem": facts}
    numbers = {
        name: [packed.first, packed.step, packed.count] if packed.listed is None else {"listed": list(packed.listed)}
        for name, packed in (facts.numbers or {}).items()
    }
    others = {
        name: [value.numerator, value.denominator] if isinstance(value, Fraction) else value
        for name, value in (facts.others or {}).items()
    }
    return {"frames": facts.frames, "numbers": numbers, "others": others}


def from_json(kept: dict[str, Any]) -> VideoFacts | str | None:
    """Invert `to_json`; None if it was written by another version."""
    if "problem" in kept:
        return kept["problem"]
    names = {field.name for field in fields(VideoIndex)}
    if {*kept.get("numbers", ()), *kept.get("others", ())} != names:
        return None
    numbers = {
        name: Numbers(*value) if isinstance(value, list) else Numbers.pack(value["listed"])
        for name, value in kept["numbers"].items()
    }
    others = {name: Fraction(*value) if isinstance(value, list) else value for name, value in kept["others"].items()}
    return VideoFacts(kept["frames"], others["fps"], others["height"], others["width"], numbers, others)


def read_store(path: Path) -> dict[str, Any]:
    """Read the kept facts, by path; a file that is missing or not ours is as good as none."""
    try:
        content = json.loads(path.read_text())
        return content["videos"] if content["format"] == STORE_FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_store(path: Path, known: dict[str, Any]) -> None:
    """Write all facts.

    Raises:
        BadOutput: the folder is missing or the disk is full.
    """
    write_bytes(path, json.dumps({"format": STORE_FORMAT, "videos": known}).encode())
