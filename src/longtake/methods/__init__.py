"""Methods by the names that the command line knows them by."""

import importlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from longtake.errors import BadInput, BadRecipe, Conflict, UnknownName, nearest
from longtake.methods.profiles import Profile, alone, is_profile, load_profile
from longtake.runtime.method import Method
from longtake.runtime.stack import Stack

METHODS: dict[str, str] = {
    "taylorseer": "caches.taylorseer:TaylorSeer",
    "delta-dit": "caches.delta_dit:DeltaDiT",
    "first-block": "caches.first_block:FirstBlock",
    "local-window": "sparse.local_window:LocalWindow",
    "minmax8": "quantization.minmax:MinMaxWeights",
    "cfg-interval": "guidance.interval:GuidanceInterval",
    "apg": "guidance.apg:ProjectedGuidance",
    "w2sd": "sampling.w2sd:W2SD",
    "attention-maps": "observers.attention_maps:AttentionMaps",
}
"""Name -> module below this package, and class."""


def method_class(name: str) -> type[Method]:
    """The class of a method. Raises UnknownName."""
    if name not in METHODS:
        raise UnknownName(f"no method is called '{name}'.{nearest(name, METHODS)}")
    module, _, kind = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)


def parse_method(text: str) -> Method:
    """A method as it is written on the command line: "taylorseer" or "taylorseer:interval=5,order=1".

    Raises:
        UnknownName: no such method or setting; the message names the nearest. BadInput: a value of the wrong kind.
    """
    name, _, rest = text.strip().partition(":")
    kind = method_class(name)
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for setting in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = setting.partition("=")
        if key not in known:
            raise UnknownName(f"{name} has no setting '{key}'.{nearest(key, known)}")
        if not equals:
            raise BadInput(f"{name}: '{setting}' has no value; write {key}=VALUE")
        given[key] = _value(name, key, value, known[key])
    return kind(**given)


def parse_stack(text: str) -> list[Method]:
    """Methods joined by "+": "taylorseer:interval=4+cfg-interval". Raises as `parse_method`."""
    return [parse_method(part) for part in text.split("+")]


def apply(pipe: Any, *methods: Method | Profile | str, allow_inert: bool = False) -> Stack:
    """Apply methods to a pipeline of ours or of diffusers, or to a network alone.

    with longtake.apply(pipe, TaylorSeer(interval=5), "cfg-interval:low=0.3") as stack:
        output = pipe("a red ball rolls left")
    print(stack.receipts)

    Without `with`, `stack.detach()` takes them away again.

    Args:
        pipe: of ours or of diffusers.
        methods: objects, or text as on the command line; or one profile, or its file.
        allow_inert: a method that does nothing is a warning, not an error.

    Raises:
        UnknownName, BadInput, BadRecipe, Conflict: see `as_stack`. Unsupported: see `Stack`; or a profile of other weights,
        another dtype or scheduler. A run of other steps, guidance or size is refused when it is asked for.
    """
    return as_stack(methods, allow_inert=allow_inert).attach(pipe)


def as_stack(given: Sequence[Method | Profile | str], *, allow_inert: bool = False) -> Stack:
    """A stack that is not attached yet.

    Args:
        given: methods, some of them written as on the command line; or one profile, or its file (FILE.json).
        allow_inert: a method that does nothing is a warning, not an error.

    Raises:
        UnknownName, BadInput: see `parse_method`. Conflict: see `Stack`, or a profile that is not alone. BadRecipe: a file
        that is no profile, or one whose method has other settings now.
    """
    named = [part for one in given if isinstance(one, str) for part in (one, *one.split("+")) if is_profile(part)]
    profiles = [one for one in given if isinstance(one, Profile)]
    if not named and not profiles:
        return Stack(as_methods([one for one in given if not isinstance(one, Profile)]), allow_inert=allow_inert)
    only = given[0]
    if len(given) > 1 or (isinstance(only, str) and "+" in only and not Path(only.strip()).is_file()):
        raise Conflict(alone(given))
    profile = only if isinstance(only, Profile) else load_profile(str(only).strip())
    method = parse_method(profile.method)
    if method.config() != profile.config:
        raise BadRecipe(f"{profile} is of {profile.method} with settings that it has no longer: calibrate again")
    return Stack([method], allow_inert=allow_inert, terms=[profile])


def as_methods(given: Sequence[Method | str]) -> list[Method]:
    """Methods, some of them written as on the command line."""
    return [one for part in given for one in (parse_stack(part) if isinstance(part, str) else [part])]


def _value(method: str, key: str, text: str, kind: Any) -> Any:
    kind = next((one for one in get_args(kind) if one is not type(None)), kind)  # of a setting that may be left open
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise BadInput(
            f"{method}: {key} is '{text}'; expected a {'true or false' if kind is bool else kind.__name__}"
        ) from None
