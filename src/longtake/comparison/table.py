"""The comparison for a terminal, and the words that table and page share for its numbers."""

from typing import TYPE_CHECKING

from longtake.comparison.report import Report, Row, Spread
from longtake.evaluation.metrics.reference import CEILING

if TYPE_CHECKING:
    from rich.table import Table

NONE = "–"


def table(report: Report) -> "Table":
    """The rows as a table of rich, dense first. Times are medians over clips with quartiles."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    made.add_column("stack", no_wrap=True)
    heads = ("s per clip", "text", "denoise", "decode", "speed-up", "MACs", "memory", "PSNR", "SSIM", "latent err.")
    for name in (*heads, "read-back", "FVD"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        name = row.name.replace("[", r"\[")
        if row.error is not None:
            made.add_row(name, "failed")
            continue
        total = row.seconds["total"]
        made.add_row(
            name,
            f"{seconds(total.median)} ({quartiles(total)})",
            *(seconds(row.seconds[part].median) for part in ("text", "denoise", "decode")),
            times(row.speedup.median if row.speedup else None),
            times(row.mac_speedup),
            memory(row.peak_memory_bytes),
            decibels(row.psnr),
            plain(row.ssim, 4),
            plain(row.latent_error, 4),
            percent(readback(row)),
            plain(row.fvd, 2),
        )
    return made


def lines(report: Report) -> list[str]:
    """What belongs under the table, one line each: what was run, failures, notes."""
    said = [f"{what_was_run(report)}; seconds are medians over clips, with quartiles in brackets"]
    said += [f"{row.name} failed: {row.error}" for row in report.rows if row.error is not None]
    said += [f"{row.name}: {note}" for row in report.rows for note in row.notes]
    if report.references:
        said.append(beside_readback(report))
    return said + list(report.notes)


def what_was_run(report: Report) -> str:
    """Prompts, seeds and settings in one line."""
    return (
        f"{count(len(report.prompts), 'prompt')} ({report.prompt_source}) × {count(report.seeds, 'seed')} = "
        f"{count(report.clips, 'clip')} a row, {report.frames} frames of {report.width}×{report.height}, "
        f"{report.steps} steps, guidance {report.guidance:g}"
    )


def beside_readback(report: Report) -> str:
    """What read-back reaches on renders, which no number of it is printed without."""
    renders = report.references["readback of renders"]["all"]
    own = ", ".join(f"{name} {share:.3f}" for name, share in report.references["detector's own accuracy"].items())
    return f"read-back of renders of the same prompts: {percent(renders)}; the detector's own accuracy: {own}"


# --------------------------------------------------------------------------------------------------------------- numbers


def readback(row: Row) -> float | None:
    """Share of all attributes, in [0, 1]."""
    return None if row.readback is None else row.readback["all"]


def seconds(value: float, like: float | None = None) -> str:
    """Two decimals; three below a tenth; one from ten on; or as many as a number `like` it has."""
    size = value if like is None else like
    return f"{value:.{3 if size < 0.1 else 2 if size < 10 else 1}f}"


def quartiles(spread: Spread) -> str:
    """Lower and upper quartile of seconds, with as many decimals as their median."""
    return f"{seconds(spread.low, spread.median)}–{seconds(spread.high, spread.median)}"


def times(value: float | None) -> str:
    """A factor: 2.31×."""
    return NONE if value is None else f"{value:.2f}×"


def memory(value: int | None) -> str:
    """Bytes as MiB or GiB."""
    if value is None:
        return NONE
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def decibels(value: float | None) -> str:
    """dB; "identical" where every frame is."""
    return NONE if value is None else "identical" if value >= CEILING else f"{value:.2f}"


def percent(value: float | None) -> str:
    """A share in [0, 1] as 98.4 %."""
    return NONE if value is None else f"{100 * value:.1f} %"


def plain(value: float | None, decimals: int) -> str:
    """A number with so many decimals, "–" for none."""
    return NONE if value is None else f"{value:.{decimals}f}"


def count(number: int, what: str) -> str:
    """1 clip, 2 clips."""
    return f"{number} {what}{'' if number == 1 else 's'}"
