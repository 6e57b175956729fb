"""The verb that lists: systems and methods, and what goes with what."""

import dataclasses
import sys
from typing import Annotated

import typer

from longtake.cli.terminal import AsJson, print_json, quiet


def systems(
    name: Annotated[str | None, typer.Argument(help="One of them.", show_default=False)] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="Which methods go together, and why others do not.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the published systems and all methods: what of each is there, and its page."""
    if matrix:
        _matrix(name, as_json)
        return
    from longtake.catalogue import systems

    rows = systems(name, beside=True)
    if as_json:
        print_json([dataclasses.asdict(row) | {"status": row.status} for row in rows])
    elif name is not None:
        for key, value in (dataclasses.asdict(rows[0]) | {"status": rows[0].status}).items():
            print(f"{key:8} {value if value is not None else '-'}")
    else:
        for row in rows:
            print(f"{row.status:9} {row.floor:20} {row.name:25} {row.page or '-':28} {row.summary}")


def _matrix(name: str | None, as_json: bool) -> None:
    """Print what goes with what, of all methods or of one."""
    quiet()
    from rich.console import Console

    from longtake.methods.matrix import legend, matrix, terminal

    found = matrix() if name is None else matrix().of(name)
    if as_json:
        print_json(found.to_json())
        return
    Console(width=None if sys.stdout.isatty() else 200).print(terminal(found))
    print("\n".join(["", *legend(found)]))
