"""What the verbs share: how they speak, what they print, and how they keep other libraries quiet."""

import contextlib
import json
import sys
from typing import Annotated, Any, NoReturn

import typer

from longtake.errors import BadInput

Model = Annotated[str, typer.Option(help="A starter's name, a pipeline folder, or a hub id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")]


def stop(message: str, code: int) -> NoReturn:
    """Say a line and leave with an exit code."""
    say(message)
    sys.exit(code)


def say(message: str) -> None:
    """Print one line on standard error."""
    print("longtake: " + " ".join(message.split()), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print indented JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def parse_size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" -> (height, width)."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise BadInput(f"size '{text}' is not WIDTHxHEIGHT in pixels, for example 64x64")
    return int(height), int(width)


def quiet() -> None:
    """Keep the progress bars and warnings of diffusers and transformers away from the terminal."""
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|huggingface_hub)(\.|$)")
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def summary(receipt: dict[str, Any]) -> str:
    """One line of what a method did."""
    counts = [
        f"{branch} " + ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        for branch, counts in receipt["branches"].items()
    ]
    parts = [f"{receipt['method']}: {receipt['sites']} sites", *counts]
    if receipt["macs_dense"]:
        parts.append(f"multiply-accumulates {receipt['macs_done'] / receipt['macs_dense']:.3f} of dense")
    if receipt["state_bytes"]:
        parts.append(f"state {receipt['state_bytes'] / 2**20:.1f} MiB")
    return "; ".join(parts)


def bar(what: str, total: int) -> Any:
    """A progress bar on standard error when that is a terminal; gives advance(done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextlib.contextmanager
    def show() -> Any:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done, all: progress.update(task, completed=done, total=all)

    return show()
