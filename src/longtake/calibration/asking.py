"""What is calibrated: the method with its knobs, and prompts, of which some are held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from longtake.comparison.asking import MOST, find_prompts
from longtake.errors import BadInput, UnknownName, nearest
from longtake.methods import METHODS, method_class, parse_method, parse_stack
from longtake.runtime.knobs import Knob, Value
from longtake.runtime.method import Method

PromptsGiven = int | str | Path | Sequence[str]


@dataclass(frozen=True)
class Subject:
    """A method, and the knobs that are searched; all other settings stay as they are."""

    method: Method
    knobs: tuple[Knob, ...]

    def at(self, setting: Mapping[str, Value]) -> Method:
        """The method with these values of its knobs. Raises BadInput for a combination that it does not take."""
        return replace(self.method, **setting)  # type: ignore[type-var]

    def written(self, setting: Mapping[str, Value]) -> str:
        """The same as on the command line, with the value of every knob, be it the default or not."""
        config, own = self.method.config(), {one.name: one.default for one in fields(self.method)}  # type: ignore[arg-type]
        held = {name: value for name, value in config.items() if value != own[name] and name not in setting}
        told = ",".join(f"{name}={value}" for name, value in {**held, **setting}.items())
        return f"{self.method.name}:{told}" if told else self.method.name


def find_subject(given: str | Method, values: Mapping[str, Sequence[Value]] | Sequence[str] = ()) -> Subject:
    """Return what is searched.

    Args:
        given: one method, as on the command line. Settings that are written, or that differ from their defaults, are held.
        values: to search in place of the declared ones, from careful to bold: a mapping, or texts "interval=2/3/4".

    Raises:
        UnknownName: no such method, setting or knob; names the nearest. BadInput: more than one method, one without knobs, a
        knob that is held too, or a value that the method does not take.
    """
    method = _one(given)
    kind = type(method)
    declared = {knob.name: knob for knob in kind.knobs}
    if not declared:
        able = [name for name in METHODS if method_class(name).knobs]
        raise BadInput(f"{kind.name} declares no knobs, so there is nothing to calibrate in it; use {', '.join(able)}")
    held = _held(given, method)
    wanted = _values(values, method, declared)
    for name in wanted:
        if name in held:
            raise BadInput(f"{kind.name}: {name} is held by '{given}' and to be searched: leave one of the two out")
    knobs = [replace(knob, values=wanted.get(name, knob.values)) for name, knob in declared.items() if name not in held]
    return Subject(method, tuple(knobs))


def _one(given: str | Method) -> Method:
    if isinstance(given, Method):
        return given
    methods = parse_stack(given)
    if len(methods) != 1:
        raise BadInput(f"'{given}' is {len(methods)} methods: calibrate one at a time")
    return methods[0]


def _held(given: str | Method, method: Method) -> set[str]:
    if isinstance(given, str):
        return {part.partition("=")[0].strip() for part in given.partition(":")[2].split(",") if part.strip()}
    return {one.name for one in fields(method) if getattr(method, one.name) != one.default}  # type: ignore[arg-type]


def _values(
    given: Mapping[str, Sequence[Value]] | Sequence[str], method: Method, declared: Mapping[str, Knob]
) -> dict[str, tuple[Value, ...]]:
    """Values by knob, in the kinds of the method's settings."""
    if not isinstance(given, Mapping):
        texts = {}
        for text in given:
            name, equals, rest = text.partition("=")
            if not equals or not rest.strip("/ "):
                raise BadInput(f"knob '{text}' is not NAME=VALUE/VALUE/..., for example interval=2/3/4")
            texts[name.strip()] = [part.strip() for part in rest.split("/") if part.strip()]
        given = texts
    found = {}
    for name, values in given.items():
        if name not in declared:
            raise UnknownName(f"{method.name} has no knob '{name}'.{nearest(name, declared)}")
        made = [getattr(parse_method(f"{method.name}:{name}={value}"), name) for value in values]
        if not made or len(set(made)) < len(made):
            raise BadInput(f"{method.name}: knob {name} has {'a value twice' if made else 'no values'}; give each once")
        found[name] = tuple(made)
    return found


# --------------------------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Halves:
    """Prompts to calibrate on, and others to check on."""

    calibration: tuple[str, ...]
    held_out: tuple[str, ...]


def split_prompts(prompts: PromptsGiven, held_out: PromptsGiven | None = None) -> Halves:
    """Return prompts of both kinds, none of which is in both.

    Args:
        prompts: a number, for captions of that many held-out scenes; a file as `comparison.asking.find_prompts` takes it;
            or the prompts themselves.
        held_out: likewise. A number is of further scenes where `prompts` is one, else of so many prompts from the end of
            `prompts`. None: as many as `prompts` where that is a number, else half of them.

    Raises:
        BadInput: a number out of range, no prompts, too few to hold some out, or a prompt that is in both.
        BadData: a file that is missing, empty or of another form.
    """
    first, second = _number(prompts), _number(held_out)
    if isinstance(first, int) and (second is None or isinstance(second, int)):
        count = first if second is None else _in_range("held-out prompts", second)
        texts = find_prompts(_in_range("prompts", first)).texts
        further = find_prompts(min(MOST, first + 2 * count)).texts[first:]
        return Halves(texts, tuple(text for text in dict.fromkeys(further) if text not in texts)[:count])
    texts = find_prompts(first if first is not None else ()).texts
    if second is None or isinstance(second, int):
        count = len(texts) // 2 if second is None else second
        if not 0 < count < len(texts):
            raise BadInput(
                f"{count} of {len(texts)} prompts cannot be held out: give at least two prompts, and hold out fewer than all"
            )
        texts, held = texts[:-count], texts[-count:]
    else:
        held = find_prompts(second).texts
    for text in held:
        if text in texts:
            raise BadInput(f"prompt '{text[:60]}' is to be calibrated on and held out: leave it out of one of the two")
    return Halves(texts, held)


def _number(given: PromptsGiven | None) -> Any:
    return int(given) if isinstance(given, str) and given.lstrip("+-").isdigit() else given


def _in_range(name: str, value: int) -> int:
    if isinstance(value, bool) or not 1 <= value <= MOST // 3:
        raise BadInput(f"{name} is {value!r}: expected a whole number from 1 to {MOST // 3}")
    return value
