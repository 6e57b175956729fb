"""Targets: what a calibrated setting must reach, as text: "psnr>=30", "speedup>=2", "macs<=0.5,ssim>=0.9"."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from longtake.errors import BadInput, UnknownName, nearest
from longtake.methods.profiles import Numbers, Outcome


@dataclass(frozen=True)
class Measure:
    """A number that a target can be set for.

    Args:
        sign: ">=" where more is better, "<=" where less is.
        low, high: what a target of it lies between, both excluded.
        quality: likeness to dense, else cost.
        decimals, unit: as it is written.
        meaning: in words.
    """

    sign: str
    low: float
    high: float
    quality: bool
    decimals: int
    unit: str
    meaning: str


MEASURES: dict[str, Measure] = {
    "psnr": Measure(">=", 0.0, 100.0, True, 2, " dB", "dB against the dense clip, mean over clips"),
    "ssim": Measure(">=", 0.0, 1.0, True, 4, "", "against the dense clip, mean over clips"),
    "latent": Measure("<=", 0.0, math.inf, True, 4, "", "|z - z_dense| / |z_dense|, mean over clips"),
    "speedup": Measure(">=", 1.0, math.inf, False, 2, "x", "dense seconds / own seconds of a clip, median over clips"),
    "macs": Measure("<=", 0.0, 1.0, False, 3, " of dense", "multiply-accumulates as a share of dense"),
}
"""Name -> measure. Each is an attribute of `longtake.methods.profiles.Numbers`."""
EXAMPLES = "write psnr>=30, ssim>=0.9, latent<=0.1, speedup>=2 or macs<=0.5, several joined by commas"


@dataclass(frozen=True)
class Target:
    """A bound on one measure. `str` gives it as it is written."""

    name: str
    bound: float

    @property
    def measure(self) -> Measure:
        """What it bounds."""
        return MEASURES[self.name]

    def __str__(self) -> str:
        return f"{self.name}{self.measure.sign}{self.bound:g}"

    def value(self, numbers: Numbers) -> float | None:
        """Of the measure; None where it was not measured."""
        return getattr(numbers, self.name)

    def missed(self, numbers: Numbers) -> float:
        """By how much, in the measure's unit; 0 where it is met, infinite where it was not measured."""
        value = self.value(numbers)
        if value is None:
            return math.inf
        return max(0.0, self.bound - value if self.measure.sign == ">=" else value - self.bound)

    def outcome(self, numbers: Numbers) -> Outcome:
        """What became of it. Raises BadInput where it was not measured."""
        value = self.value(numbers)
        if value is None:
            raise BadInput(f"{self.name} was not measured: leave {self} out")
        return Outcome(str(self), value, self.missed(numbers))


def parse_targets(given: str | Sequence[str]) -> tuple[Target, ...]:
    """Return targets.

    Args:
        given: "NAME>=VALUE" or "NAME<=VALUE", joined by commas, or several of these.

    Raises:
        BadInput: another form, a bound out of range or in the wrong direction, no target, or a measure twice.
        UnknownName: no such measure; names the nearest.
    """
    texts = [given] if isinstance(given, str) else list(given)
    found = [_parse(part.strip()) for text in texts for part in text.split(",")]
    if not found:
        raise BadInput(f"there is no target: {EXAMPLES}")
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{name} has two targets: leave one of them out")
    return tuple(found)


def _parse(text: str) -> Target:
    form = re.fullmatch(r"(\w+)\s*([<>]=)\s*([-+.\w]+)", text)
    try:
        name, sign, bound = (form[1], form[2], float(form[3])) if form else ("", "", math.nan)
    except ValueError:
        name, sign, bound = "", "", math.nan
    if math.isnan(bound):
        raise BadInput(f"target '{text}' is not NAME>=VALUE or NAME<=VALUE: {EXAMPLES}")
    if name not in MEASURES:
        raise UnknownName(f"target '{text}': no measure is called '{name}'.{nearest(name, MEASURES)}")
    measure = MEASURES[name]
    if sign != measure.sign:
        raise BadInput(f"target '{text}': {name} is {measure.meaning}; write {name}{measure.sign}{bound:g}")
    if not measure.low < bound < measure.high:
        limits = f"above {measure.low:g}" + (f" and below {measure.high:g}" if math.isfinite(measure.high) else "")
        raise BadInput(f"target '{text}': {name} is {measure.meaning}; use a number {limits}")
    return Target(name, bound)


def written(name: str, value: float | None) -> str:
    """A value of a measure with its unit, as "31.24 dB"."""
    measure = MEASURES[name]
    return "not known" if value is None else f"{value:.{measure.decimals}f}{measure.unit}"


def verdict(outcome: Outcome) -> str:
    """One target on the held-out clips, in words."""
    name = re.split("[<>]", outcome.target)[0]
    value = written(name, outcome.value)
    if not outcome.missed:
        return f"{outcome.target} met: {value}"
    return f"{outcome.target} missed by {_missed(name, outcome.missed)}: {value}"


def _missed(name: str, by: float) -> str:
    """By how much, never rounded to nothing."""
    measure = MEASURES[name]
    return f"{max(by, 10.0**-measure.decimals):.{measure.decimals}f}{'' if name == 'macs' else measure.unit}"
