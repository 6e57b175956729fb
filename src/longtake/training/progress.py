"""What a training says while it runs: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows step, loss, throughput and time left.

    Args:
        name: of the run.
        done, steps: completed steps at the start, and all of them.
        clips: clips per step.
        quiet: say nothing (processes other than the first).
        line_seconds: how often a line is printed when the output is no terminal.
    """

    def __init__(
        self, name: str, done: int, steps: int, clips: int, *, quiet: bool = False, line_seconds: float = 20.0
    ) -> None:
        self.name, self.first, self.steps, self.clips, self.quiet = name, done, steps, clips, quiet
        self.line_seconds = line_seconds
        self._started = time.monotonic()
        self._paused = 0.0
        self._next_line = 0.0
        self._console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._bar: Bar | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._row = self._bar.add_task(name, total=steps, completed=done, facts="")

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, done: int, facts: dict[str, float]) -> None:
        """Report completed steps and the latest numbers."""
        elapsed = time.monotonic() - self._started - self._paused
        rate = (done - self.first) / max(elapsed, 1e-9)
        if self.quiet:
            return
        words = " ".join(f"{name} {value:.4g}" for name, value in facts.items())
        words += f" {rate * self.clips:.3g} clips/s"
        if self._bar:
            self._bar.update(self._row, completed=done, facts=words)
        elif elapsed >= self._next_line:
            left = (self.steps - done) / max(rate, 1e-9)
            self.say(f"{self.name}: step {done}/{self.steps} {words} left {clock(left)}")
            self._next_line = elapsed + self.line_seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the clock of the throughput stands still (validation, samples, checkpoints); may be nested."""
        began, before = time.monotonic(), self._paused
        try:
            yield
        finally:
            self._paused = before + time.monotonic() - began

    def say(self, words: str) -> None:
        """Print a line of its own."""
        self._console.print(words, markup=False)


def clock(seconds: float) -> str:
    """12345 -> "3:25:45"."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
