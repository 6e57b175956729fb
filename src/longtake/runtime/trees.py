"""What a module returns, as a flat list of tensors and back."""

from typing import Any

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from longtake.errors import Unsupported

Form = tuple[type, tuple[str, ...], tuple[torch.dtype | None, ...]]
"""Kind of the value, names of its fields, and the dtype of each tensor, None where there is none."""


def pack(made: Any) -> tuple[Form, list[Tensor]]:
    """A tensor, a tuple of tensors and Nones, or an output record of diffusers: its form and its tensors.

    Raises:
        Unsupported: anything else.
    """
    if isinstance(made, Tensor):
        return (Tensor, (), (made.dtype,)), [made]
    names: tuple[str, ...] = ()
    values: tuple[Any, ...]
    if isinstance(made, BaseOutput):
        names, values = tuple(made.keys()), made.to_tuple()
    elif isinstance(made, tuple):
        values = made
    else:
        raise Unsupported(f"a module returned a {type(made).__name__}; methods know tensors, tuples and output records")
    dtypes = tuple(value.dtype if isinstance(value, Tensor) else None for value in values)
    return (type(made), names, dtypes), [value for value in values if isinstance(value, Tensor)]


def unpack(form: Form, tensors: list[Tensor]) -> Any:
    """The value of a form, with tensors in the dtypes that they had."""
    kind, names, dtypes = form
    rest = iter(tensors)
    values = [None if dtype is None else next(rest).to(dtype) for dtype in dtypes]
    if kind is Tensor:
        return values[0]
    return kind(**dict(zip(names, values, strict=True))) if names else tuple(values)
