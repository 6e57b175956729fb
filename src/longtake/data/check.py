"""What a folder of videos would give to a training, and what is wrong with the rest."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longtake.data.frames import read_frames
from longtake.data.layouts import LAYOUTS
from longtake.data.presets import FolderOptions, Preset
from longtake.data.survey import Piece, survey
from longtake.errors import BadVideo
from longtake.video import VideoReader


@dataclass(frozen=True)
class DataReport:
    """The result of `check`; plain values, JSON by ``dataclasses.asdict``.

    Attributes:
        root: what was looked at. layout, split, preset: how it was read.
        clip: (frames, height, width) of a training clip. clip_seconds: shortest and longest duration of a clip.
        videos: how many can be trained on. windows: how many different clips they hold.
        sizes: videos per "WxH". rates: videos per "fps". hours: in all.
        durations: shortest, median and longest video in seconds.
        classes: number of classes. prompted: videos with a prompt. prompts: a few of them.
        problems: (name, reason) of what cannot be used. ignored: other files, by suffix.
        notes: advice.
    """

    root: str
    layout: str
    split: str
    preset: str
    clip: tuple[int, int, int]
    clip_seconds: tuple[float, float]
    videos: int
    windows: int
    sizes: dict[str, int]
    rates: dict[str, int]
    hours: float
    durations: tuple[float, float, float]
    classes: int
    prompted: int
    prompts: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    ignored: dict[str, int]
    notes: tuple[str, ...]


def check(
    root: str | Path, options: FolderOptions | None = None, *, deep: bool = False, progress: bool = True
) -> DataReport:
    """Look at a folder, table or .zip as a training would, and report.

    Args:
        root: what `VideoFolder` would be given. options: likewise.
        deep: decode every frame of every video, which finds damage that the index pass does not see.
        progress: show a bar.

    Returns:
        The report. A set with nothing to train on is reported, not raised: ``report.videos == 0``.

    Raises:
        BadData: there are no videos at all, or the layout is another than the one asked for.
    """
    found = survey(root, options or FolderOptions(), progress=progress)
    pieces, problems = list(found.pieces), list(found.problems)
    if deep:
        damage = {piece.source.path: _damage(piece) for piece in pieces}
        problems += [(piece.source.name, damage[piece.source.path]) for piece in pieces if damage[piece.source.path]]
        pieces = [piece for piece in pieces if not damage[piece.source.path]]
    preset, listing = found.preset, found.listing
    lengths = sorted(len(piece.seconds) / piece.facts.fps for piece in pieces)
    rates = Counter(f"{piece.facts.fps:.4g}" for piece in pieces)
    spans = [(preset.frames * preset.stride) / (preset.fps or piece.facts.fps) for piece in pieces]
    prompts = dict.fromkeys(piece.source.prompts[0] for piece in pieces if piece.source.prompts)
    return DataReport(
        root=str(found.root),
        layout=listing.layout,
        split=listing.split,
        preset=preset.name,
        clip=(preset.frames, preset.height, preset.width),
        clip_seconds=(min(spans, default=0.0), max(spans, default=0.0)),
        videos=len(pieces),
        windows=sum(piece.windows for piece in pieces),
        sizes=dict(Counter(f"{piece.facts.width}x{piece.facts.height}" for piece in pieces).most_common()),
        rates=dict(rates.most_common()),
        hours=sum(lengths) / 3600,
        durations=(lengths[0], lengths[len(lengths) // 2], lengths[-1]) if lengths else (0.0, 0.0, 0.0),
        classes=len(listing.classes),
        prompted=sum(bool(piece.source.prompts) for piece in pieces),
        prompts=tuple(prompts)[:3],
        problems=tuple(problems),
        ignored=dict(listing.ignored),
        notes=_notes(pieces, preset, len(rates) > 1),
    )


def format_report(report: DataReport, limit: int = 20) -> str:
    """Write a report as text for people; at most `limit` problems are listed one by one."""
    frames, height, width = report.clip
    shortest, median, longest = report.durations
    low, high = report.clip_seconds
    per_clip = f"{low:.2f} s" if high - low < 0.005 else f"{low:.2f} to {high:.2f} s"
    examples = "".join(f'\n               "{_short(prompt, 90)}"' for prompt in report.prompts)
    lines = [
        f"{report.root}",
        f"  layout       {report.layout} ({LAYOUTS[report.layout]}), split {report.split}, preset {report.preset}",
        f"  videos       {report.videos} to train on, {len(report.problems)} not",
    ]
    if report.videos:
        lines += [
            f"  clips        {frames} frames of {width}x{height}, {per_clip} each; {report.windows} different windows",
            f"  sizes        {_counts(report.sizes)}",
            f"  frame rates  {_counts(report.rates)}",
            f"  durations    {shortest:.2f} / {median:.2f} / {longest:.2f} s (shortest / median / longest), "
            f"{_duration(report.hours)} in all",
            f"  prompts      {report.prompted} of {report.videos}"
            + (f", {report.classes} classes" if report.classes else "")
            + examples,
        ]
    if report.ignored:
        lines.append(f"  ignored      {_counts(report.ignored)}")
    lines += [f"  note         {note}" for note in report.notes]
    if report.problems:
        lines.append("not used:")
        lines += [f"  {name}: {reason}" for name, reason in report.problems[:limit]]
        if len(report.problems) > limit:
            lines.append(f"  and {len(report.problems) - limit} more")
    return "\n".join(lines)


def _damage(piece: Piece, chunk: int = 64) -> str:
    """Decode a whole video; return why that fails, or nothing."""
    source, count = piece.source, piece.facts.frames
    chunks = [range(first, min(first + chunk, count)) for first in range(0, count, chunk)]
    try:
        if source.frames:
            for numbers in chunks:
                read_frames(source.path, source.frames, numbers)
        else:
            with VideoReader(source.path, index=piece.facts.index) as reader:
                for numbers in chunks:
                    reader.frames(numbers)
    except BadVideo as error:
        return str(error)
    return ""


def _notes(pieces: Sequence[Piece], preset: Preset, mixed_rates: bool) -> tuple[str, ...]:
    notes, rate = [], preset.fps or 0.0
    small = sum(piece.facts.height < preset.height or piece.facts.width < preset.width for piece in pieces)
    if small:
        notes.append(f"{small} videos are smaller than {preset.width}x{preset.height} and are enlarged")
    slow = sum(piece.facts.fps < 0.99 * rate for piece in pieces)
    if slow:
        notes.append(f"{slow} videos are slower than {rate:g} fps and repeat frames: lower fps, or leave them out")
    if mixed_rates and preset.fps is None:
        notes.append("frame rates differ: set fps to make all clips play at one speed")
    bare = sum(not piece.source.prompts for piece in pieces)
    if bare:
        notes.append(f"{bare} videos have no prompt: put NAME.txt beside NAME.mp4, or a table with video and prompt")
    return tuple(notes)


def _counts(counts: dict[str, int], limit: int = 6) -> str:
    shown = [f"{name or 'no suffix'} ({count})" for name, count in list(counts.items())[:limit]]
    return ", ".join(shown) + (f" and {len(counts) - limit} more" if len(counts) > limit else "")


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
