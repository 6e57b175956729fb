"""Profiles: the setting of a method that a calibration has found, and the runs that it was found for.

`longtake calibrate` writes one; `longtake.apply(pipe, load_profile("fast.json"))`, `generate --with fast.json` and
`compare --stack fast.json` use it, and refuse it where weights, dtype, scheduler, steps, guidance or size are others.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from longtake import __version__
from longtake.errors import BadRecipe, Unsupported, nearest
from longtake.pipelines.records import weights_of
from longtake.pipelines.schedulers import describe_scheduler

FORMAT = 1
"""Number of the file's layout; a profile of another layout is refused."""
SHOWN = 12
"""Characters of a hash that messages name."""


@dataclass(frozen=True)
class Numbers:
    """What a setting costs and how close to dense it stays, over some clips; None for what was not measured.

    Attributes:
        clips: how many. psnr (dB), ssim, latent: means over clips, as `longtake.comparison.likeness` has them.
        macs: multiply-accumulates, as a share of dense. speedup: dense seconds / own seconds of a clip, the two run in
            turns, median over clips; low, high: its quartiles.
    """

    clips: int
    psnr: float | None = None
    ssim: float | None = None
    latent: float | None = None
    macs: float | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one target on the held-out clips: its text, the value, and by how much it was missed, 0 if it was
    met."""

    target: str
    value: float
    missed: float


@dataclass(frozen=True)
class Tried:
    """A setting that the search has tried: the method as on the command line, its numbers on the calibration clips, and why
    there are none."""

    method: str
    numbers: Numbers | None = None
    error: str | None = None


@dataclass(frozen=True)
class Profile:
    """A calibrated setting of a method.

    Attributes:
        method: as on the command line. config: all of its settings. chosen: those that were searched.
        model, weights, dtype, scheduler, steps, guidance, frames, height, width: of the runs that it is for.
        targets: as they were asked for. outcomes: of each, on held-out clips.
        calibration, held_out: numbers on either clips. tried: all settings of the search, in order.
        prompts, held_out_prompts: of the clips, which go around them; seed: calibration clip k is drawn from seed + k,
            held-out clips go on from there.
        device, machine, versions, command, date: where, with what and how it was made.
        path: file that it was read from; not in the file.
    """

    method: str
    config: dict[str, Any]
    chosen: dict[str, Any]
    model: str
    weights: str
    dtype: str
    scheduler: dict[str, Any]
    steps: int
    guidance: float
    frames: int
    height: int
    width: int
    targets: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    calibration: Numbers
    held_out: Numbers
    tried: tuple[Tried, ...] = ()
    prompts: tuple[str, ...] = ()
    held_out_prompts: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""
    format: int = FORMAT
    path: str = ""

    def __str__(self) -> str:
        return f"profile '{self.path}'" if self.path else "the profile"

    @property
    def met(self) -> bool:
        """Whether the held-out clips met every target."""
        return not any(one.missed for one in self.outcomes)

    def to_json(self) -> str:
        """Indented JSON with a final line break."""
        told = asdict(self)
        del told["path"]
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"

    def check(self, pipe: Any, settings: Any = None) -> None:
        """Refuse a pipeline or a run that the profile is not for, with one line that names both values and the remedy.

        Args:
            pipe: a `VideoPipeline`, or a pipeline that is called as one.
            settings: `longtake.pipelines.records.Settings` of a run; None before any is asked for, when weights are
                compared, which takes a pass over all of them.

        Raises:
            Unsupported: it is for others.
        """
        if not (callable(getattr(pipe, "weights", None)) or callable(getattr(pipe, "settings", None))):
            raise Unsupported(
                f"{self} cannot be used on a {type(pipe).__name__}, whose steps and size are not told to methods: call it "
                "through longtake.pipelines.ForeignPipeline"
            )
        if settings is None:
            self._check_network(pipe)
        self._check_scheduler(pipe)
        if settings is None:
            return
        for name in ("steps", "guidance", "frames", "height", "width"):
            mine, theirs = getattr(self, name), getattr(settings, name)
            if mine != theirs:
                self._refuse(f"{name} {mine:g}", f"{theirs:g}", f"use {name}={mine:g}")

    def _check_network(self, pipe: Any) -> None:
        if self.versions.get("longtake", __version__) != __version__:
            warnings.warn(
                f"{self} was made with longtake {self.versions['longtake']}, and this is {__version__}; calibrate "
                "again to be sure",
                stacklevel=2,
            )
        dtype = str(pipe.transformer.dtype).removeprefix("torch.")
        if dtype != self.dtype:
            self._refuse(f"dtype {self.dtype}", dtype, f"load the model with dtype {self.dtype}")
        weights = weights_of(pipe)
        if weights != self.weights:
            self._refuse(
                f"weights {self.weights[:SHOWN]}", weights[:SHOWN], f"load the model that it is of, {self.model}"
            )

    def _check_scheduler(self, pipe: Any) -> None:
        found = describe_scheduler(pipe.scheduler)
        if found == self.scheduler:
            return
        mine, theirs = self.scheduler.get("class"), found["class"]
        if mine != theirs:
            self._refuse(f"scheduler {mine}", theirs, "use that scheduler")
        own = self.scheduler.get("config", {})
        name = next((key for key in own | found["config"] if own.get(key) != found["config"].get(key)), "config")
        self._refuse(
            f"{mine} of {name} {own.get(name)}", f"{name} {found['config'].get(name)}", "set the scheduler up the same"
        )

    def _refuse(self, mine: str, theirs: Any, remedy: str) -> None:
        raise Unsupported(f"{self} was calibrated with {mine}, and this is {theirs}: {remedy}, or calibrate for this")


def load_profile(path: str | Path) -> Profile:
    """Read a profile that `longtake calibrate` wrote.

    Raises:
        BadRecipe: no file, no JSON, another layout, an unknown key or a value of a wrong kind; one line.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRecipe(f"profile '{path}' cannot be read: {why}; give the file that calibrate wrote") from None
    except json.JSONDecodeError as error:
        raise BadRecipe(f"profile '{path}' is not JSON: {error}; give the file that calibrate wrote") from None
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise BadRecipe(f"profile '{path}' has format {content['format']!r}; this version reads format {FORMAT}")
    return replace(_read(Profile, content, f"profile '{path}'"), path=str(path))


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as the type that a field has."""
    options = get_args(kind)
    if get_origin(kind) is UnionType:
        return None if value is None else _read(next(one for one in options if one is not type(None)), value, where)
    if is_dataclass(kind):
        return _read_object(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    origin = get_origin(kind) or kind
    wanted = list if origin is tuple else origin
    if type(value) is not wanted:
        raise BadRecipe(
            f"{where} is {str(value)[:40]!r}, expected {wanted.__name__}; give the file that calibrate wrote"
        )
    return tuple(_read(options[0], one, where) for one in value) if wanted is list else value


def _read_object(kind: Any, content: Any, where: str) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        raise BadRecipe(
            f"{where} holds a {type(content).__name__}, expected an object; give the file that calibrate wrote"
        )
    for key in content:
        if key not in hints:
            raise BadRecipe(f"{where}: unknown key '{key}'.{nearest(key, hints)}")
    for one in fields(kind):
        if one.name not in content and one.default is MISSING and one.default_factory is MISSING:
            raise BadRecipe(f"{where}: '{one.name}' is missing; give the file that calibrate wrote")
    return kind(**{key: _read(hints[key], value, f"{where}, {key}") for key, value in content.items()})


def is_profile(text: str) -> bool:
    """Whether a stack written on the command line is the file of a profile."""
    return text.strip().lower().endswith(".json")


def alone(given: Sequence[Any]) -> str:
    """What is wrong with a profile among other methods, in words."""
    return (
        f"{'+'.join(map(str, given))}: a profile was calibrated alone and is used alone; write its method in place of the "
        "file to combine it with others"
    )
