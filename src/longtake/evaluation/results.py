"""What a measurement found, as a record: each number with its interval, its reference, and all that decided it.

Two results are compared only when their protocols agree in every switch and their real clips are the same; `compare`
says in words where they do not.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longtake.errors import BadInput, BadRecipe, LongtakeError
from longtake.evaluation.protocol import Protocol, differences
from longtake.video import write_bytes

FORMAT = "longtake.evaluation/1"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Value:
    """One number.

    Attributes:
        name: what it is called, with the network in brackets where that is not the published one.
        metric: as it was asked for: "fvd".
        value: the number. low, high: ends of its bootstrap interval over clips; None where there is none.
        better: "lower", "higher", or "" where neither is.
        reference: the number to hold it against, and reference_name: what that is: "floor" (two real halves, brought
            to these numbers of clips), "real" (the same measure of the real clips), "own accuracy".
        clips: how many generated clips it is over.
        details: numbers behind it, by name. note: what must be said with it, in a line.
    """

    name: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    better: str = ""
    reference: float | None = None
    reference_name: str = ""
    clips: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Numbers along a clip: `values` at `places`, with the ends of their interval, and those of the real clips."""

    name: str
    along: str
    places: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    real: tuple[float, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What was measured on one side.

    Attributes:
        source: its name. index_hash: of what all its clips show.
        videos: there were so many that could be opened. clips: names of those that count, in the order of all rows.
        frames, height, width: of a prepared clip.
        unreadable, short: (name, reason) of videos that could not be read, and that a window did not fit into.
        more: windows beyond the count that the protocol asks for.
        settings: how clips were made, where a model made them.
    """

    source: str
    index_hash: str
    videos: int
    clips: tuple[str, ...]
    frames: int
    height: int
    width: int
    unreadable: tuple[tuple[str, str], ...] = ()
    short: tuple[tuple[str, str], ...] = ()
    more: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A whole measurement.

    Attributes:
        protocol: all switches, with the hashes of the networks that were used.
        fake: the clips that were measured. real: those that they were compared with, if any.
        values, curves: what was found.
        per_clip: metric -> one number for each clip of `fake.clips`.
        networks: name -> hash, width and what is known of it.
        limits: sentences that belong to the numbers.
        resamples, confidence: of the bootstrap.
        seconds: "decode", "look" (networks and metrics of clips), "all". decoded: clips that were not in the cache.
        versions, machine, processes, command, date: under which it was made.
    """

    protocol: Protocol
    fake: Measured
    real: Measured | None
    values: tuple[Value, ...]
    curves: tuple[Curve, ...] = ()
    per_clip: dict[str, list[float]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    resamples: int = 0
    confidence: float = CONFIDENCE
    seconds: dict[str, float] = field(default_factory=dict)
    decoded: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    command: str = ""
    date: str = ""

    def __getitem__(self, metric: str) -> Value:
        """The number of a metric or of a name. Raises KeyError."""
        for value in self.values:
            if metric in (value.metric, value.name):
                return value
        raise KeyError(f"no number '{metric}' among {', '.join(value.name for value in self.values)}")

    def to_json(self) -> str:
        """The result as indented JSON with a final line break; `protocol_id` stands beside the protocol."""
        told = {"format": FORMAT, "protocol_id": self.protocol.id, **asdict(self)}
        return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def write_result(result: Result, path: str | Path) -> None:
    """Write the record under a temporary name, then rename. Raises BadOutput."""
    write_bytes(path, result.to_json().encode())


def read_result(path: str | Path) -> Result:
    """Read a record. Raises BadRecipe for no file, no JSON, or something else than a result."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRecipe(f"result '{path}' cannot be read: {why}; give the .json that evaluate wrote.") from None
    except json.JSONDecodeError as error:
        raise BadRecipe(f"result '{path}' is not JSON: {error}; give the .json that evaluate wrote.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadRecipe(f"result '{path}' is not of format {FORMAT}; give the .json that evaluate wrote.")
    try:
        return _build(content)
    except LongtakeError as error:
        raise BadRecipe(f"result '{path}': {error}") from None
    except (KeyError, TypeError) as error:
        raise BadRecipe(f"result '{path}' is not a whole result ({error}); measure again.") from None


def _build(content: Mapping[str, Any]) -> Result:
    told = {key: value for key, value in content.items() if key not in ("format", "protocol_id")}
    told["protocol"] = Protocol.from_json(told["protocol"])
    told["fake"] = _measured(told["fake"])
    told["real"] = None if told["real"] is None else _measured(told["real"])
    told["values"] = tuple(Value(**value) for value in told["values"])
    told["curves"] = tuple(
        Curve(**{key: tuple(value) if isinstance(value, list) else value for key, value in curve.items()})
        for curve in told["curves"]
    )
    told["limits"] = tuple(told["limits"])
    return Result(**told)


def _measured(told: Mapping[str, Any]) -> Measured:
    pairs = {key: tuple(tuple(pair) for pair in told[key]) for key in ("unreadable", "short")}
    return Measured(**{**told, **pairs, "clips": tuple(told["clips"])})


# ---------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Row:
    """One number of two results. `verdict`: "better", "worse" or "no difference" of the second against the first, by
    whether their intervals overlap; empty where there are no intervals or neither direction is better."""

    name: str
    first: Value
    second: Value
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two results side by side. `differences`: where their protocols or real clips differ; empty when they agree."""

    rows: tuple[Row, ...]
    differences: tuple[str, ...]


def compare(first: Result, second: Result, *, force: bool = False) -> Comparison:
    """Set the numbers of two results beside one another.

    Args:
        first, second: the results. force: also when they differ in their protocols or real clips.

    Raises:
        BadInput: they differ, with every difference in words; or they have no number in common.
    """
    found = differences(first.protocol, second.protocol)
    if first.real is not None and second.real is not None and first.real.index_hash != second.real.index_hash:
        found.append(f"the real clips are {_told(first.real)} and {_told(second.real)}")
    if found and not force:
        raise BadInput(
            f"results of {first.protocol.id} and {second.protocol.id} cannot be compared: {'; '.join(found)}; "
            "measure both in one way, or --force."
        )
    others = {value.name: value for value in second.values}
    rows = [
        Row(value.name, value, others[value.name], _verdict(value, others[value.name]))
        for value in first.values
        if value.name in others
    ]
    if not rows:
        raise BadInput(
            f"the results have no number in common: {', '.join(v.name for v in first.values)} in the first, "
            f"{', '.join(others)} in the second."
        )
    return Comparison(tuple(rows), tuple(found))


def _verdict(first: Value, second: Value) -> str:
    ends = (first.low, first.high, second.low, second.high)
    if not first.better or any(end is None for end in ends):
        return ""
    low_a, high_a, low_b, high_b = (float(end) for end in ends if end is not None)
    if low_a <= high_b and low_b <= high_a:
        return "no difference"
    return "better" if (second.value < first.value) == (first.better == "lower") else "worse"


def _told(measured: Measured) -> str:
    return f"{len(measured.clips)} of {measured.source} (hash {measured.index_hash[:8]})"
