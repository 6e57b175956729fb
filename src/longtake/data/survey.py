"""The index pass over a data set: opens every video once, finds what can be trained on, says why the rest cannot."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import Progress

from longtake.data.facts import VideoFacts, from_json, read_store, stamp, to_json, write_store
from longtake.data.frames import read_frames
from longtake.data.layouts import Listing, Source, class_words, list_sources
from longtake.data.presets import FolderOptions, Preset, resolve
from longtake.data.windows import count_windows, needed_frames
from longtake.errors import BadVideo
from longtake.video import VideoReader


@dataclass(frozen=True)
class Piece:
    """A video, or a piece of one, that can be trained on.

    Attributes:
        source: where it is. facts: what the index pass learnt.
        first, last: the frames first .. last - 1 of the video belong to the piece. windows: how many fit.
    """

    source: Source
    facts: VideoFacts
    first: int
    last: int
    windows: int

    @property
    def seconds(self) -> Sequence[float]:
        """Time of each frame of the piece, from the beginning of the video."""
        return self.facts.seconds[self.first : self.last]


@dataclass(frozen=True)
class Survey:
    """The result: `pieces` to train on, `problems` as (name, reason) of everything else, and how it was read."""

    root: Path
    preset: Preset
    listing: Listing
    pieces: tuple[Piece, ...]
    problems: tuple[tuple[str, str], ...]


def survey(root: str | Path, options: FolderOptions, *, progress: bool = True, threads: int | None = None) -> Survey:
    """List a data set and open every video of it.

    Args:
        root: folder, table or .zip. options: preset, changes, layout.
        progress: show a bar when it takes over two seconds. threads: files opened at a time; None: one per core.

    Raises:
        BadData: the layout is not the one asked for, or nothing is there at all. Unreadable and short videos are no
            errors; they are in `problems`.
    """
    root, preset = Path(root), resolve(options)
    listing = list_sources(
        root,
        layout=preset.layout,
        split=preset.split,
        columns=options.columns,
        class_prompts=options.class_prompts,
    )
    store = Path(options.index) if options.index else None
    learnt = _facts_of_all(listing.sources, options.folder_fps, store, progress, threads)
    pieces, problems = [], list(listing.problems)
    for source in listing.sources:
        facts = learnt[_identity(source)]
        if isinstance(facts, str):
            problems.append((source.name, facts))
            continue
        for part in _cut(_with_prompts(source, options.prompts), facts, options.window_seconds):
            piece, reason = _piece(part, facts, preset)
            if piece is None:
                problems.append((part.name, reason))
            else:
                pieces.append(piece)
    return Survey(root, preset, listing, tuple(pieces), tuple(problems))


def _with_prompts(source: Source, prompts: str) -> Source:
    if prompts == "none":
        return replace(source, prompts=())
    if prompts == "name" and not source.prompts:
        return replace(source, prompts=(class_words(Path(source.name.split("[")[0]).stem),))
    return source


def _cut(source: Source, facts: VideoFacts, seconds: float | None) -> list[Source]:
    """Cut a source into pieces of so many seconds; a rest shorter than half a piece joins the last one."""
    if seconds is None:
        return [source]
    unit = 1.0 if source.unit == "seconds" else facts.fps
    length, begin = seconds * unit, source.start or 0.0
    end = facts.seconds[-1] * unit + unit / facts.fps if source.end is None else source.end
    count = max(1, round((end - begin) / length))
    edges = [begin + number * length for number in range(count)] + [end]
    stem = source.name.split("[")[0]
    return [
        replace(source, name=f"{stem}[{start:g}-{stop:g}]", start=start, end=stop)
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def _piece(source: Source, facts: VideoFacts, preset: Preset) -> tuple[Piece | None, str]:
    """Return the piece, or None and why it cannot be used."""
    if preset.resize == "as-is" and (facts.height, facts.width) != (preset.height, preset.width):
        return None, f"is {facts.width}x{facts.height}, this preset takes {preset.width}x{preset.height} as it is"
    first, last, seconds = 0, facts.frames, facts.seconds
    if source.start is not None or source.end is not None:
        moments = seconds if source.unit == "seconds" else range(facts.frames)
        start, stop = source.start or 0.0, float("inf") if source.end is None else source.end
        inside = [number for number, moment in enumerate(moments) if start - 1e-6 <= moment < stop - 1e-6]
        if not inside:
            return None, f"has no frames between {start:g} and {stop:g} {source.unit}; it ends at {moments[-1]:g}"
        first, last = inside[0], inside[-1] + 1
    windows = count_windows(preset.rule, seconds[first:last])
    if windows == 0:
        had = f"{last - first} frames" if preset.fps is None else f"{seconds[last - 1] - seconds[first]:.3g} s"
        return None, f"too short: {had} from first to last frame, a clip needs {needed_frames(preset.rule)}"
    return Piece(source, facts, first, last, windows), ""


def _identity(source: Source) -> tuple[Path, str]:
    return source.path, source.frames[0] if source.frames else ""


def _facts_of_all(
    sources: Iterable[Source], folder_fps: float, store: Path | None, progress: bool, threads: int | None
) -> dict[tuple[Path, str], VideoFacts | str]:
    """Open every video once, in threads (FFmpeg works outside Python's lock); a string says why one cannot be read."""
    known = read_store(store) if store else {}
    todo = {_identity(source): source for source in sources}
    learnt: dict[tuple[Path, str], VideoFacts | str] = {}
    stamps = {source.path: stamp(source.path) for source in todo.values() if store and not source.frames}
    for identity, source in todo.items():
        kept = known.get(str(source.path))
        facts = from_json(kept) if kept and kept["stamp"] == stamps.get(source.path) else None
        if facts is not None:
            learnt[identity] = facts
    rest = [(identity, source) for identity, source in todo.items() if identity not in learnt]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool, Progress(disable=not progress, transient=True) as bar:
        task = bar.add_task("Opening videos", total=len(rest), visible=len(rest) > 100)
        found = pool.map(lambda pair: _facts(pair[1], folder_fps), rest)
        for number, ((identity, source), facts) in enumerate(zip(rest, found, strict=True), 1):
            learnt[identity] = facts
            bar.advance(task)
            if store and not source.frames:
                known[str(source.path)] = {"stamp": stamps[source.path], **to_json(facts)}
                if number % 5000 == 0:
                    write_store(store, known)
    if store and rest:
        write_store(store, known)
    return learnt


def _facts(source: Source, folder_fps: float) -> VideoFacts | str:
    try:
        if source.frames:
            height, width = read_frames(source.path, source.frames, [0]).shape[1:3]
            return VideoFacts(len(source.frames), folder_fps, height, width)
        with VideoReader(source.path, threads=1, folder_fps=folder_fps) as reader:
            return VideoFacts.of(reader.index)
    except BadVideo as error:
        return str(error)
