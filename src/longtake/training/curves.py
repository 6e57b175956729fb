"""Curves of a training: CSV as it goes, TensorBoard beside it, and a PNG to look at.

A resumed run cuts the rows behind its checkpoint and writes them again, so the file is that of an unbroken run.
"""

import csv
import os
from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any


class Curve:
    """One CSV file of numbers per step: ``step`` and the columns of the first row that is added.

    Numbers are written with `repr`, so that reading them back gives the same bits.

    Args:
        path: of the CSV file.
        after: completed steps; rows behind it are cut from a file that is there.
        board: a TensorBoard writer or None.
        group: the first part of the curves' names there.
    """

    def __init__(self, path: Path, after: int, board: Any | None = None, group: str = "train") -> None:
        self.path, self.board, self.group = path, board, group
        self.columns: list[str] = []
        if path.is_file():
            self._rewrite([row for row in read_curve(path) if row["step"] <= after])

    def add(self, rows: Sequence[dict[str, float]]) -> None:
        """Append rows with ``step`` among their keys. A new key becomes a column; what a row lacks is nan."""
        if not rows:
            return
        if any(name not in self.columns for name in rows[0]):
            self._rewrite([*(read_curve(self.path) if self.path.is_file() else []), *rows])
        else:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerows([_text(row.get(c, nan)) for c in self.columns] for row in rows)
        if self.board is not None:
            for row in rows:
                for name, value in row.items():
                    if name != "step":
                        self.board.add_scalar(f"{self.group}/{name}", value, int(row["step"]))

    def _rewrite(self, rows: Sequence[dict[str, float]]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row))
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.writer(file)
            if rows:
                writer.writerow(self.columns)
            writer.writerows([_text(row.get(c, nan)) for c in self.columns] for row in rows)
        os.replace(partial, self.path)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Read a curve's rows; a last line that was cut short is left out."""
    with path.open(newline="") as file:
        table = list(csv.reader(file))
    if not table:
        return []
    columns, rows = table[0], []
    for line in table[1:]:
        try:
            values = [float(text) for text in line]
        except ValueError:
            continue
        if len(values) == len(columns):
            rows.append({**dict(zip(columns, values, strict=True)), "step": int(values[columns.index("step")])})
    return rows


def open_board(folder: Path, after: int) -> Any | None:
    """Return a TensorBoard writer that hides what an interrupted run wrote behind ``after`` steps."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=after + 1 if after else None)


def draw_curves(folder: Path) -> Path | None:
    """Draw ``loss.csv`` and ``validation.csv`` of a run into ``curves.png``; None when there is nothing to draw."""
    from matplotlib.figure import Figure

    if not (folder / "loss.csv").is_file():
        return None
    train = read_curve(folder / "loss.csv")
    held_out = read_curve(folder / "validation.csv") if (folder / "validation.csv").is_file() else []
    if not train:
        return None
    names = [name for name in train[-1] if name != "step"]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        steps, values = zip(*[(r["step"], r[name]) for r in train if isfinite(r[name])] or [(0, 1.0)], strict=True)
        axes.plot(steps, values, linewidth=0.5, alpha=0.4, color="tab:blue")
        axes.plot(steps, _smooth(values), linewidth=1.4, color="tab:blue", label="training")
        if held_out and name in held_out[0]:
            axes.plot(
                [r["step"] for r in held_out],
                [r[name] for r in held_out],
                "o-",
                ms=3,
                color="tab:orange",
                label="held out",
            )
            axes.legend(frameon=False)
        axes.set_title(name)
        axes.set_xlabel("step")
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
    partial = folder / "curves.partial.png"
    figure.savefig(partial, dpi=110)
    os.replace(partial, folder / "curves.png")
    return folder / "curves.png"


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential average over about 2 % of the curve, at least 10 steps."""
    share = 1 / max(10.0, 0.02 * len(values))
    smooth, average = [], values[0]
    for value in values:
        average += share * (value - average)
        smooth.append(average)
    return smooth


def _text(value: float) -> str:
    return repr(value)
