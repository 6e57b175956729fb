"""Methods by the names that the command line knows them by."""

import importlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from longtake.errors import BadInput, UnknownName, nearest
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


def apply(pipe: Any, *methods: Method | str, allow_inert: bool = False) -> Stack:
    """Apply methods to a pipeline of ours or of diffusers, or to a network alone.

    with longtake.apply(pipe, TaylorSeer(interval=5), "cfg-interval:low=0.3") as stack:
        output = pipe("a red ball rolls left")
    print(stack.receipts)

    Without `with`, `stack.detach()` takes them away again.

    Args:
        pipe: of ours or of diffusers.
        methods: objects, or text as on the command line.
        allow_inert: a method that does nothing is a warning, not an error.

    Raises:
        UnknownName, BadInput: see `parse_method`. Conflict, Unsupported: see `Stack`.
    """
    return Stack(as_methods(methods), allow_inert=allow_inert).attach(pipe)


def as_methods(given: Sequence[Method | str]) -> list[Method]:
    """Methods, some of them written as on the command line."""
    return [one for part in given for one in (parse_stack(part) if isinstance(part, str) else [part])]


def _value(method: str, key: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise BadInput(
            f"{method}: {key} is '{text}'; expected a {'true or false' if kind is bool else kind.__name__}"
        ) from None
