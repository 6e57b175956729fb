"""Which methods go together, from what they declare: a table for the terminal, for a page, and as plain data.

`tests/methods/test_matrix.py` tries every pair of them on small networks and keeps docs/systems/matrix.md equal to this.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

from longtake.methods import METHODS, method_class, parse_method
from longtake.runtime.stack import refusal

if TYPE_CHECKING:
    from rich.table import Table

TOGETHER, REFUSED = "+", "abcdefghijklmnopqrstuvwxyz"
"""Marks of a pair: one that goes together, and one that is refused, for which reason."""

PAGE_HEAD = """\
# What goes with what

Every pair of methods, those with themselves included. Printed also by:

```bash
longtake systems --matrix
```

The test that keeps this page (`tests/methods/test_matrix.py`) applies every pair to a small random network of ours and
to a small random pipeline of diffusers. A pair marked `+` ran, both methods acted by their receipts and changed what
came out, it was the same whichever was named first, and adding a method with settings that change nothing changed
nothing. A pair with a letter is refused before a model is loaded, with the reason below. How good the clips are is
another question, for `longtake compare`.
"""
PAGE_END = """\
Two methods that go together can still leave one another nothing to do, when the outer one skips just those steps on
which the inner one would act. The run then ends with an error that names it, as for any method that did nothing; give
the two other intervals.
"""


@dataclass(frozen=True)
class Pair:
    """Two methods, and why they cannot be used together; None where they can."""

    one: str
    other: str
    why: str | None


@dataclass(frozen=True)
class Matrix:
    """All methods, some in several forms, and all pairs of them, those of a method with itself included.

    Args:
        forms: as they are written on the command line. pairs: each once, in the order of the forms.
    """

    forms: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why pairs are refused, each reason once."""
        return tuple(dict.fromkeys(pair.why for pair in self.pairs if pair.why is not None))

    def mark(self, one: str, other: str) -> str:
        """TOGETHER, or the letter of the reason, numbered as `reasons`; nothing for a pair that is not here."""
        pair = next((p for p in self.pairs if {p.one, p.other} == {one, other}), None)
        if pair is None:
            return ""
        return TOGETHER if pair.why is None else REFUSED[self.reasons.index(pair.why)]

    def of(self, name: str) -> "Matrix":
        """The pairs of one method. Raises UnknownName."""
        method_class(name)
        return Matrix(self.forms, tuple(p for p in self.pairs if name in (_name(p.one), _name(p.other))))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        pairs = [{"methods": [p.one, p.other], "together": p.why is None, "why": p.why} for p in self.pairs]
        return {"methods": list(self.forms), "pairs": pairs}


def forms() -> tuple[str, ...]:
    """Every method of METHODS, and each once more for every form in which it acts at another level."""
    return tuple(
        text for name in METHODS for text in (name, *(f"{name}:{settings}" for settings in method_class(name).forms))
    )


def _name(form: str) -> str:
    return form.partition(":")[0]


def matrix() -> Matrix:
    """What goes with what, by the declarations of the methods."""
    methods = {text: parse_method(text) for text in forms()}
    pairs = [
        Pair(one, other, refusal(methods[one], methods[other]))
        for one, other in combinations_with_replacement(methods, 2)
    ]
    return Matrix(tuple(methods), tuple(pairs))


def terminal(found: Matrix) -> "Table":
    """The matrix as a table; its columns are numbered as its rows are."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("method", no_wrap=True)
    for number in range(1, len(found.forms) + 1):
        table.add_column(str(number), justify="center")
    for number, one in enumerate(found.forms, 1):
        table.add_row(str(number), one, *(found.mark(one, other) for other in found.forms))
    return table


def legend(found: Matrix) -> list[str]:
    """What the marks of the table say."""
    return [f"{TOGETHER}  go together", *(f"{REFUSED[i]}  refused: {why}" for i, why in enumerate(found.reasons))]


def markdown(found: Matrix) -> str:
    """The page of the matrix."""
    numbers = range(1, len(found.forms) + 1)
    rows = [
        f"| {number} | `{one}` | " + " | ".join(found.mark(one, other) for other in found.forms) + " |"
        for number, one in zip(numbers, found.forms, strict=True)
    ]
    table = [
        "| | method | " + " | ".join(map(str, numbers)) + " |",
        "| --: | :-- |" + " :-: |" * len(found.forms),
        *rows,
    ]
    marks = [f"- `{line[0]}` {line[3:]}" for line in legend(found)]
    return "\n".join([PAGE_HEAD, *table, "", *marks, "", PAGE_END])
