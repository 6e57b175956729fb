"""A result for people: a table for the terminal, and one HTML page that holds everything it shows."""

import base64
import html
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from longtake.evaluation.protocol import Side
from longtake.evaluation.results import Comparison, Curve, Measured, Result, Value
from longtake.video import Clip, from_uint8, write_bytes, write_strip

if TYPE_CHECKING:
    from rich.table import Table

LISTED = 5
"""Unreadable and short files that the terminal names; the record and the page name all."""


# ------------------------------------------------------------------------------------------------------------ terminal


def result_table(result: Result) -> "Table":
    """The numbers as a table of rich."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("measure", "value", f"{result.confidence:.0%} interval", "against", "clips"):
        table.add_column(name, justify="left" if name in ("measure", "against") else "right", no_wrap=True)
    for value in result.values:
        table.add_row(
            value.name.replace("[", r"\["), figure(value.value), interval(value), against(value), str(value.clips)
        )
    return table


def result_lines(result: Result) -> list[str]:
    """What belongs under the table: protocol, sides, files left out, networks, notes and limits; one line each."""
    lines = [f"protocol {result.protocol.id}"]
    for what, side in (("real", result.real), ("generated", result.fake)):
        if side is not None:
            lines.append(f"{what}: {_side_line(side)}")
            lines += [f"  not read: {name}: {why}" for name, why in side.unreadable[:LISTED]]
            lines += [f"  too short: {name} {why}" for name, why in side.short[:LISTED]]
            if (rest := sum(max(0, len(some) - LISTED) for some in (side.unreadable, side.short))) > 0:
                lines.append(f"  and {rest} more, all listed in the record")
    for name, told in result.networks.items():
        accuracy = (told.get("facts") or {}).get("own_accuracy") or {}
        shown = ", ".join(f"{key} {value:.3f}" for key, value in accuracy.items())
        lines.append(f"network {name}, hash {told['hash'][:12]}" + (f"; its own accuracy: {shown}" if shown else ""))
    lines += [f"{value.name}: {value.note}" for value in result.values if value.note]
    lines += list(result.limits)
    spent = result.seconds
    if spent.get("decode", 0) + spent.get("look", 0) > 0:
        share = spent["decode"] / (spent["decode"] + spent["look"])
        what = "making and decoding" if result.fake.settings else "decoding"
        lines.append(f"{spent['all']:.1f} s, {result.decoded} clips decoded, {share:.0%} of the work was {what}")
    return lines


def comparison_table(comparison: Comparison, names: tuple[str, str]) -> "Table":
    """Two results side by side."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("measure", *names, "verdict"):
        table.add_column(name.replace("[", r"\["), justify="left" if name in ("measure", "verdict") else "right")
    for row in comparison.rows:
        cells = [f"{figure(value.value)}  ({interval(value)})" for value in (row.first, row.second)]
        table.add_row(row.name.replace("[", r"\["), *cells, row.verdict)
    return table


def figure(number: float | None) -> str:
    """Four figures of a number, "-" for none."""
    if number is None:
        return "-"
    return f"{number:.4g}" if abs(number) < 1e4 else f"{number:.0f}"


def interval(value: Value) -> str:
    """The ends of an interval, "-" where there is none."""
    return "-" if value.low is None or value.high is None else f"{figure(value.low)} .. {figure(value.high)}"


def against(value: Value) -> str:
    """The number that a value is held against, with its name."""
    return "-" if value.reference is None else f"{value.reference_name} {figure(value.reference)}"


def _side_line(side: Measured) -> str:
    left = [
        f"{count} {why}"
        for count, why in (
            (len(side.unreadable), "not readable"),
            (len(side.short), "too short"),
            (side.more, "beyond"),
        )
        if count
    ]
    return (
        f"{len(side.clips)} clips of {side.frames} frames {side.width}x{side.height} from {side.videos} videos of "
        f"{side.source}" + (f" ({', '.join(left)})" if left else "")
    )


# ---------------------------------------------------------------------------------------------------------------- page


@dataclass(frozen=True)
class Shown:
    """A clip on the page: its name, uint8 (3, T, H, W), and its real partner where there is one."""

    name: str
    clip: Tensor
    real: Tensor | None = None
    fps: float = 8.0


def write_page(result: Result, path: str | Path, clips: Sequence[Shown] = ()) -> None:
    """Write the page; pictures, curves and style are inside it. Raises BadOutput."""
    title = f"{result.fake.source}: {', '.join(f'{v.name} {figure(v.value)}' for v in result.values[:2])}"
    body = [
        f"<h1>{_text(result.fake.source)}</h1>",
        f"<p class=id>protocol <b>{_text(result.protocol.id)}</b>{' · ' + _text(result.date) if result.date else ''}</p>",
        _values(result),
        *(f"<p class=note>{_text(line)}</p>" for line in result_lines(result)[1:]),
        "<h2>Curves</h2><div class=row>" + "".join(map(curve_svg, result.curves)) + "</div>" if result.curves else "",
        _gallery(clips),
        "<h2>Sampling</h2>" + _pairs(result.fake.settings) if result.fake.settings else "",
        "<h2>Protocol</h2>" + _protocol(result),
        _left_out(result),
        "<h2>Made with</h2>" + _pairs({**result.versions, **result.machine, "processes": result.processes}),
        f"<pre>{_text(result.command)}</pre>" if result.command else "",
    ]
    page = _PAGE.format(title=_text(title), style=_STYLE, body="\n".join(part for part in body if part))
    write_bytes(path, page.encode())


def curve_svg(curve: Curve, width: int = 340, height: int = 190) -> str:
    """A curve as inline SVG: its line with its interval as a band, the real clips' as a dashed line."""
    left, right, top, bottom = 52, 10, 26, 30
    numbers = [*curve.values, *curve.low, *curve.high, *curve.real]
    low, high = min(numbers), max(numbers)
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-12 else (low, high)
    first, last = min(curve.places), max(curve.places)
    span = (last - first) or 1.0

    def point(place: float, number: float) -> str:
        x = left + (place - first) / span * (width - left - right)
        y = height - bottom - (number - low) / (high - low) * (height - top - bottom)
        return f"{x:.1f},{y:.1f}"

    def points(values: Sequence[float]) -> str:
        return " ".join(point(place, value) for place, value in zip(curve.places, values, strict=True))

    parts = []
    if curve.low and curve.high:
        back = " ".join(reversed(points(curve.low).split()))
        parts.append(f"<polygon class=band points='{points(curve.high)} {back}'/>")
    if curve.real:
        parts.append(f"<polyline class=real points='{points(curve.real)}'/>")
    parts.append(f"<polyline class=line points='{points(curve.values)}'/>")
    parts += [
        f"<circle cx='{xy.split(',')[0]}' cy='{xy.split(',')[1]}' r=2.5 />" for xy in points(curve.values).split()
    ]
    base = height - bottom
    parts.append(f"<path class=axis d='M{left},{top}V{base}H{width - right}'/>")
    for number, y in ((high, top + 4), (low, base)):
        parts.append(f"<text x={left - 5} y={y} text-anchor=end>{figure(number)}</text>")
    for place, x, anchor in ((first, left, "start"), (last, width - right, "end")):
        parts.append(f"<text x={x} y={base + 13} text-anchor={anchor}>{figure(place)}</text>")
    parts.append(f"<text x={(left + width - right) / 2} y={height - 4} text-anchor=middle>{_text(curve.along)}</text>")
    parts.append(f"<text class=name x={left} y=14>{_text(curve.name)}</text>")
    return f"<svg width={width} height={height} role=img aria-label='{_text(curve.name)}'>{''.join(parts)}</svg>"


def _values(result: Result) -> str:
    head = f"<tr><th>measure<th>value<th>{result.confidence:.0%} interval<th>against<th>clips<th>"
    rows = [
        f"<tr><td>{_text(v.name)}<td class=n>{figure(v.value)}<td class=n>{interval(v)}<td>{_text(against(v))}"
        f"<td class=n>{v.clips}<td class=d>{f'{v.better} is better' if v.better else ''}"
        for v in result.values
    ]
    return f"<table>{head}{''.join(rows)}</table>"


def _gallery(clips: Sequence[Shown]) -> str:
    if not clips:
        return ""
    figures = []
    for shown in clips:
        pictures = [_moving(shown.clip, shown.fps, "generated")]
        if shown.real is not None:
            pictures.append(_moving(shown.real, shown.fps, "real"))
        figures.append(f"<figure>{''.join(pictures)}<figcaption>{_text(shown.name)}</figcaption></figure>")
    with_real = any(shown.real is not None for shown in clips)
    return f"<h2>Clips{': generated, real' if with_real else ''}</h2><div class=row>{''.join(figures)}</div>"


def _moving(pixels: Tensor, fps: float, what: str) -> str:
    """An animated WebP inside the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webp"
        write_strip(Clip(from_uint8(pixels.permute(1, 2, 3, 0))[None], fps), path)
        data = base64.b64encode(path.read_bytes()).decode()
    wide = min(256, max(96, pixels.shape[-1]))
    return f"<img alt={what} width={wide} src='data:image/webp;base64,{data}'>"


def _protocol(result: Result) -> str:
    real, fake = asdict(result.protocol.real), asdict(result.protocol.fake)
    rows = "".join(
        f"<tr{'' if real[name] == fake[name] else ' class=differs'}><td>{name}<td>{_text(_plain(real[name]))}"
        f"<td>{_text(_plain(fake[name]))}"
        for name in Side.__dataclass_fields__
    )
    common = {key: value for key, value in asdict(result.protocol).items() if key not in ("name", "real", "fake")} | {
        "resamples": result.resamples
    }
    return f"<table><tr><th>switch<th>real<th>generated{rows}</table>{_pairs(common)}"


def _left_out(result: Result) -> str:
    rows = [
        f"<tr><td>{what}<td>{_text(name)}<td>{_text(why)}"
        for what, side in (("real", result.real), ("generated", result.fake))
        if side is not None
        for name, why in (*side.unreadable, *side.short)
    ]
    return f"<h2>Left out</h2><table>{''.join(rows)}</table>" if rows else ""


def _pairs(values: dict[str, Any]) -> str:
    return "<table>" + "".join(f"<tr><td>{_text(k)}<td>{_text(_plain(v))}" for k, v in values.items()) + "</table>"


def _plain(value: Any) -> str:
    return "none" if value in (None, "") else str(value)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1d2327;background:#fff;max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.4em;margin-bottom:0}h2{font-size:1.1em;margin:1.6em 0 .4em}.id,.note{color:#50575e;margin:.2em 0}
table{border-collapse:collapse;margin:.8em 0}th{text-align:left;font-weight:600}
td,th{padding:.2em .9em .2em 0;border-bottom:1px solid #e4e6e8;vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums}.d{color:#787c82;font-size:.9em}.differs{background:#fff6e0}
.row{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0}figcaption{font-size:.8em;color:#50575e;max-width:210px}
img{image-rendering:auto;margin-right:3px;border-radius:2px}pre{white-space:pre-wrap;color:#50575e}
svg{font:11px system-ui,sans-serif;fill:#50575e}svg .name{font-weight:600;fill:#1d2327}
.line{fill:none;stroke:#1f6fb2;stroke-width:2}circle{fill:#1f6fb2}.band{fill:#1f6fb2;opacity:.15}
.real{fill:none;stroke:#787c82;stroke-width:1.5;stroke-dasharray:4 3}.axis{fill:none;stroke:#c3c4c7}
""".strip()
_PAGE = (
    "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<title>{title}</title><style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
)
