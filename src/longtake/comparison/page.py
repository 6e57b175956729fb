"""The comparison as one HTML page that holds everything it shows: table, clips, receipts. It asks the network for nothing.

Skeleton, style and script are page.html, page.css and page.js beside this file. Without a script the table is whole and
each clip has controls of its own.
"""

import base64
import html
import re
import tempfile
from pathlib import Path
from string import Template
from typing import Any

from longtake.comparison.report import PARTS, ClipResult, Report, Row
from longtake.comparison.table import (
    NONE,
    beside_readback,
    count,
    decibels,
    memory,
    percent,
    plain,
    quartiles,
    readback,
    seconds,
    times,
    what_was_run,
)
from longtake.video import Clip, VideoReader, from_uint8, write_bytes, write_clip

GROUPS = (("", 1), ("seconds per clip", 4), ("speed-up", 2), ("", 1), ("against dense", 3), ("against the prompt", 2))
COLUMNS = (
    ("stack", "", "methods as they are written on the command line"),
    ("all", "low", "text, denoise and decode together"),
    ("text", "low", "the prompt through the text encoder"),
    ("denoise", "low", "noise to latents"),
    ("decode", "low", "latents to pixels"),
    ("clock", "high", "seconds of dense / own seconds, of the same clip"),
    ("MACs", "high", "multiply-accumulates of dense / own"),
    ("peak memory", "low", "the most of any clip"),
    ("PSNR dB", "high", "of pixels; higher is nearer to dense"),
    ("SSIM", "high", "of pixels; 1 is the same"),
    ("latent error", "low", "of latents, relative; 0 is the same"),
    ("read-back", "high", "attributes of the prompt that are read back from the clips"),
    ("FVD [scenes-3d]", "low", "distance to renders of the same prompts"),
)
"""Heading, which way is better, and what it says."""

LEGEND = (
    ("seconds", "Median over clips, quartiles below it. Rows take turns, so a busy machine slows all of them alike."),
    ("speed-up, clock", "Seconds of dense divided by seconds of the stack, for each clip; median and quartiles."),
    (
        "speed-up, MACs",
        "Multiply-accumulates of the denoising network without methods, divided by those that were done, counted by the "
        "library around each method. Memory traffic and the method's own bookkeeping keep the clock behind.",
    ),
    ("peak memory", "Of the whole process on a CPU; of what PyTorch allocates on a GPU."),
    (
        "PSNR, SSIM",
        "Each clip against the dense clip of the same prompt and seed, mean over frames and clips. They say how much a "
        "stack changes the clip, not whether it becomes worse: another clip can be as good.",
    ),
    ("latent error", "|z − z_dense| / |z_dense| before decoding, mean over clips."),
    (
        "read-back",
        "Colours, shapes, motions, background and camera that a detector finds in the clip as the prompt asked for "
        "them. It says whether a stack costs what the prompt asked for.",
    ),
    (
        "FVD[scenes-3d]",
        "Fréchet distance of the features of a small network of ours, to renders of the same prompts. It compares with "
        "no paper's FVD.",
    ),
)


def write_page(report: Report, folder: Path, *, shown: int = 12) -> None:
    """Write index.html.

    Args:
        report: what it shows. folder: of the report, where its clips are.
        shown: prompts whose clips are on the page, each with its first seed.

    Raises:
        BadOutput: the folder cannot be written.
    """
    here = Path(__file__).parent
    body = [
        "<header>",
        "<div class=kicker>longtake compare</div>",
        f"<h1>{_text(report.model)}</h1>",
        f"<p class=what>{_text(what_was_run(report))}.<br>{_text(_where(report))}</p>",
        f"<p class=lead>{_lead(report)}</p>",
        "</header>",
        _results(report),
        _notes(report),
        _clips(report, folder, shown),
        "<h2>What each stack did</h2>",
        *(_receipts(row) for row in report.rows if row.methods),
        "<h2>How to read this, and how it was made</h2>",
        _legend(),
        _prompts(report),
        _made_with(report),
        f"<footer>{_text(report.date)} · weights {report.weights[:12]} · numbers in report.json</footer>",
    ]
    page = Template((here / "page.html").read_text()).substitute(
        title=_text(f"{report.model}: {count(len(report.rows) - 1, 'stack')} against dense"),
        style=(here / "page.css").read_text().strip(),
        script=(here / "page.js").read_text().strip(),
        body="\n".join(part for part in body if part),
    )
    write_bytes(folder / "index.html", page.encode())


# ----------------------------------------------------------------------------------------------------------------- table


def _lead(report: Report) -> str:
    """The comparison in a sentence: the fastest stack, and the nearest to dense."""
    rows = [row for row in report.rows[1:] if row.speedup is not None and row.psnr is not None]
    if not rows:
        return "No stack ran to its end; the table says why."
    fast = max(rows, key=lambda row: row.speedup.median if row.speedup else 0)
    near = max(rows, key=lambda row: row.psnr or 0)
    said = f"<b class=stack>{_text(fast.name)}</b> takes {_times_as_long(fast)}, and {_away(fast)}"
    if near is not fast:
        said += f"; nearest to dense is <b class=stack>{_text(near.name)}</b>, which {_away(near)}"
    return said + "."


def _times_as_long(row: Row) -> str:
    assert row.speedup is not None
    share = 1 / row.speedup.median
    return f"{100 * share:.0f} % of dense's time ({times(row.speedup.median)})"


def _away(row: Row) -> str:
    same = decibels(row.psnr) == "identical"
    return "makes dense's clips, byte for byte" if same else f"reaches {decibels(row.psnr)} dB PSNR against dense"


def _results(report: Report) -> str:
    groups = "".join(f"<th colspan={span} scope=colgroup>{_text(name)}" for name, span in GROUPS)
    heads = "".join(
        f"<th scope=col data-best={best or 'low'} title='{_text(title)}'>{_text(name).replace(' ', '<br>')}"
        for name, best, title in COLUMNS
    )
    longest = max((row.seconds["total"].median for row in report.rows if row.seconds), default=1.0)
    rows = "\n".join(_result(row, longest) for row in report.rows)
    key = "".join(f"<span><i class=part-{part}></i>{part}</span>" for part in PARTS)
    return (
        f"<div class=scroll><table class=results><thead><tr class=group>{groups}<tr>{heads}</thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>\n<div class=key>{key}<span>bars are as long as the seconds</span></div>"
    )


def _result(row: Row, longest: float) -> str:
    badge = "<span class=badge>baseline</span>" if not row.methods else ""
    bar = ""
    if row.seconds:
        parts = "".join(
            f"<i class=part-{part} style='width:{100 * row.seconds[part].median / longest:.2f}%'></i>" for part in PARTS
        )
        bar = f"<div class=bar>{parts}</div>"
    head = f"<th scope=row data-value='{_text(row.name)}'>{_stack(row.name)}{badge}{bar}</th>"
    kind = "" if row.methods else " class=dense"
    if row.error is not None:
        return f"<tr{kind}>{head}<td class=failed colspan={len(COLUMNS) - 1}>{_text(row.error)}</td></tr>"
    cells = [_cell(row.seconds[part].median, seconds, quartiles(row.seconds[part])) for part in ("total", *PARTS)]
    faster = row.speedup
    between = "" if faster is None or not row.methods else f"{faster.low:.2f}–{faster.high:.2f}"
    cells += [
        _cell(faster.median if faster else None, times, between),
        _cell(row.mac_speedup, times),
        _cell(row.peak_memory_bytes, memory),
        _cell(row.psnr, decibels),
        _cell(row.ssim, lambda value: plain(value, 4)),
        _cell(row.latent_error, lambda value: plain(value, 4)),
        _cell(readback(row), percent),
        _cell(row.fvd, lambda value: plain(value, 2)),
    ]
    return f"<tr{kind}>{head}{''.join(cells)}</tr>"


def _cell(value: float | None, shown: Any, below: str = "") -> str:
    if value is None:
        return f"<td class=none>{NONE}</td>"
    small = f"<small>{_text(below)}</small>" if below else ""
    return f"<td data-value={value:.9g}>{_text(shown(value))}{small}</td>"


def _notes(report: Report) -> str:
    said = [f"{row.name}: {note}" for row in report.rows for note in row.notes]
    said += [beside_readback(report)] if report.references else []
    said += report.notes
    return "<ul class=notes>" + "".join(f"<li>{_text(note)}" for note in said) + "</ul>" if said else ""


# ----------------------------------------------------------------------------------------------------------------- clips


def _clips(report: Report, folder: Path, shown: int) -> str:
    places = range(min(shown, len(report.prompts)))
    if not places:
        return ""
    more = len(report.prompts) - len(places)
    rest = f" of the first {len(places)} prompts" if more else ""
    player = (
        f"<div class=player data-fps={report.fps:g} data-frames={report.frames}><button type=button>Play</button>"
        f"<input type=range min=0 max={report.frames - 1} step=1 value=0 aria-label=frame>"
        "<select aria-label=speed><option value=1>1×<option value=0.5>½×<option value=0.25>¼×</select>"
        "<output></output></div>"
    )
    prompts = []
    for place in places:
        seed = report.first_seed + place
        figures = [
            _figure(row, clip, folder)
            for row in report.rows
            for clip in row.clips
            if clip.seed == seed and row.error is None
        ]
        prompts.append(
            f"<section class=prompt><p>{_text(report.prompts[place])}<small>seed {seed}</small></p>\n"
            f"<div class=clips>{''.join(figures)}</div></section>"
        )
    return (
        f"<h2>Clips, side by side</h2>\n<p class=what>The first seed of each prompt{rest}; all clips are in clips/, without "
        f"loss.</p>\n{player}\n" + "\n".join(prompts)
    )


def _figure(row: Row, clip: ClipResult, folder: Path) -> str:
    with VideoReader(folder / clip.file, threads=1) as reader:
        frames, fps = reader.frames(range(reader.frame_count)), float(reader.fps)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "clip.mp4"
        write_clip(Clip(from_uint8(frames)[None], fps), path)
        data = base64.b64encode(path.read_bytes()).decode()
    if not row.methods:
        said = "baseline"
    else:
        alike = decibels(clip.psnr)
        said = alike if alike in ("identical", NONE) else f"{alike} dB"
    return (
        f"<figure><video muted playsinline loop controls preload=auto width={frames.shape[2]} height={frames.shape[1]} "
        f"aria-label='{_text(row.name)}' src='data:video/mp4;base64,{data}'></video>"
        f"<figcaption>{_stack(row.name)}<small>{said}</small></figcaption></figure>\n"
    )


# -------------------------------------------------------------------------------------------------------------- receipts


def _receipts(row: Row) -> str:
    if row.error is not None:
        told = "stopped"
    elif row.mac_speedup is None:
        told = "work not known"
    else:
        told = f"{percent(1 / row.mac_speedup)} of dense's multiply-accumulates"
    parts = [f"<p class=failed>{_text(row.error)}</p>"] if row.error is not None else []
    parts += [_receipt(one) for one in row.receipts]
    if row.readback is not None:
        parts.append("<h3>Read back</h3>" + _facts({name: percent(share) for name, share in row.readback.items()}))
    return (
        f"<details><summary>{_stack(row.name)}<small>{_text(told)}</small></summary>"
        f"<div>{''.join(parts)}</div></details>"
    )


def _receipt(receipt: dict[str, Any]) -> str:
    """What one method did in all clips of its row."""
    rows = "".join(
        f"<tr><td>{_text(branch)}"
        + "".join(f"<td>{counts.get(kind, 0):,}" for kind in ("computed", "skipped", "changed"))
        for branch, counts in receipt["branches"].items()
    )
    head = "<tr><th>branch<th>computed<th>skipped<th>computed otherwise"
    told: dict[str, Any] = {"places in the network": f"{receipt['sites']:,}", "clips": receipt["runs"]}
    if receipt["macs_dense"]:
        done, dense = receipt["macs_done"], receipt["macs_dense"]
        told["multiply-accumulates of the stack"] = f"{_large(done)} of {_large(dense)}, {percent(done / dense)}"
    if receipt["observed"]:
        told["calls observed"] = f"{receipt['observed']:,}"
    if receipt["state_bytes"]:
        told["state, at most"] = f"{receipt['state_bytes'] / 2**20:.2f} MiB"
    if receipt["kernels"]:
        told["kernels"] = ", ".join(f"{name} ({calls:,} calls)" for name, calls in receipt["kernels"].items())
    told |= {f"note: {name}": value for name, value in receipt["notes"].items()}
    settings = ", ".join(f"{name}={value}" for name, value in receipt["config"].items()) or "none"
    return (
        f"<h3>{_text(receipt['method'])}</h3><p class=what>settings <code>{_text(settings)}</code></p>"
        + (f"<table>{head}{rows}</table>" if rows else "")
        + _facts(told)
    )


def _large(number: int) -> str:
    """A large number in words: 1.24 T."""
    for unit, name in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)


# ------------------------------------------------------------------------------------------------------- how it was made


def _where(report: Report) -> str:
    facts = report.machine
    device = facts.get("gpu") if report.device.startswith("cuda") else facts.get("processor")
    return f"{device or report.device}, {count(facts.get('threads', 1), 'thread')}, {report.dtype}"


def _legend() -> str:
    terms = "".join(f"<dt>{_text(name)}<dd>{_text(meaning)}" for name, meaning in LEGEND)
    return f"<details><summary>What the columns mean</summary><div><dl>{terms}</dl></div></details>"


def _prompts(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{_text(', '.join(str(report.first_seed + place + n * len(report.prompts)) for n in range(report.seeds)))}"
        f"<td>{_text(prompt)}"
        for place, prompt in enumerate(report.prompts)
    )
    return (
        "<details><summary>Prompts and seeds</summary><div><table class=facts>"
        f"<tr><td>seeds<td>prompt ({_text(report.prompt_source)}){rows}</table></div></details>"
    )


def _made_with(report: Report) -> str:
    told = {
        "model": report.model,
        "weights": report.weights,
        "scheduler": report.scheduler.get("class", "unknown"),
        "device": f"{report.device}, {report.dtype}",
        **report.machine,
        **report.versions,
    }
    command = f"<pre>{_text(report.command)}</pre>" if report.command else ""
    return f"<details><summary>Machine, versions, command</summary><div>{command}{_facts(told)}</div></details>"


def _facts(values: dict[str, Any]) -> str:
    rows = "".join(f"<tr><td>{_text(name)}<td>{_text(value)}" for name, value in values.items())
    return f"<table class=facts>{rows}</table>"


def _stack(name: str) -> str:
    """A stack's name, which may be broken behind its marks."""
    broken = re.sub(r"([:,+])", r"\1<wbr>", _text(name))
    return f"<span class=stack>{broken}</span>"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
