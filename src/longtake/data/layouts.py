"""Which videos a folder or a table holds: layouts L1-L5, L7 and L8, recognised from the file names alone.

====  ==========================  =====================================================================================
L1    class folders of videos     ROOT/<Class>/<file>                       (UCF-101 as Latte takes it)
L2    split and class folders     ROOT/{train,test}/<Class>/<file>          (UCF-101 as TATS takes it)
L3    folder of videos, any depth ROOT/**/<file>                            (FaceForensics)
L4    folders of frames           ROOT/**/<clip>/<name>_000123.jpg          (SkyTimelapse, Taichi-HD)
L5    frame folders with labels   ROOT/<video>/<frame>.jpg + dataset.json, or the same in a .zip        (StyleGAN-V)
L7    table                       CSV, TSV, JSONL, JSON or Parquet with the columns video and prompt
L8    two lists                   prompts.txt and videos.txt, one per line
====  ==========================  =====================================================================================

A table or a pair of lists at the top of a folder wins over the folder's shape, for it says more; then the order above.
One class folder alone is a folder of videos (L3), and a folder whose name is that of a split holds a split, not a
class. A video's prompt is, in this order: the table's, the one in ``<file>.txt`` or ``<file>.json`` beside it, the name
of its class, nothing.
"""

import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from longtake.data.frames import pack_names
from longtake.errors import BadData, BadVideo, UnknownName, nearest
from longtake.video.folders import order_frames
from longtake.video.images import IMAGE_SUFFIXES

VIDEOS = frozenset(
    ".mp4 .avi .webm .mov .mkv .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .ogv .3gp .gif .y4m .mxf .vob".split()
)
TABLES = frozenset(".csv .tsv .jsonl .parquet".split())
SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
LAYOUTS = {
    "L1": "class folders of videos",
    "L2": "split and class folders of videos",
    "L3": "folder of videos",
    "L4": "folders of frames",
    "L5": "folders of frames with labels",
    "L7": "table of videos",
    "L8": "lists of prompts and videos",
}


@dataclass(frozen=True)
class Source:
    """One video, or one piece of a video, before anything of it is opened.

    Attributes:
        path: a video file, a folder of frames, or the .zip that holds the frames.
        name: what reports call it: the path below the root, with ``[start-end]`` for a piece.
        frames: file names of the frames in order, relative to `path`; empty for a video file.
        prompts: the prompt and its paraphrases; empty if there is none.
        label: index of its class among the sorted class names, or None.
        start, end: the piece to use, in seconds or frames (`unit`) from the beginning; None: from the very beginning,
            to the very end.
    """

    path: Path
    name: str
    frames: Sequence[str] = ()
    prompts: tuple[str, ...] = ()
    label: int | None = None
    start: float | None = None
    end: float | None = None
    unit: str = "seconds"


@dataclass(frozen=True)
class Listing:
    """The videos below a root and how they were recognised.

    Attributes:
        layout: "L1" ... "L8". split: "train", "test", "val", "all" or "unknown".
        sources: in a fixed order (sorted by path; a table's rows in the table's order).
        classes: sorted class names, empty without classes.
        problems: (name, reason) of what looks like data and cannot be used.
        ignored: file names that are neither videos nor frames nor anything this layout reads, counted by suffix.
    """

    layout: str
    split: str
    sources: tuple[Source, ...]
    classes: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)


def list_sources(
    root: str | Path,
    *,
    layout: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    class_prompts: Mapping[str, str] | None = None,
) -> Listing:
    """Recognise the layout below a root and list its videos; opens nothing but tables, lists and sidecar prompts.

    Args:
        root: a folder, a table, or a .zip of frame folders.
        layout: "L1" ... "L8" to insist on one; None recognises it.
        split: "train", "test", "val" or "all". None takes "train" where the folders at the top are named after
            splits, else everything.
        columns: the table's name for video, prompt, start, end, class (see `longtake.data.tables`).
        class_prompts: prompt of each class, in place of the class name in words; may contain all or some classes.

    Raises:
        BadData: no such root, nothing in it, another layout than the one asked for, or a table that lacks a column.
        UnknownName: an unknown layout or split.
    """
    from longtake.data import tables

    root = Path(root)
    if layout is not None and layout not in LAYOUTS:
        raise UnknownName(f"Unknown layout '{layout}'.{nearest(layout, LAYOUTS)}")
    if split is not None and split not in {*SPLITS.values(), "all"}:
        raise UnknownName(f"Unknown split '{split}'.{nearest(split, {*SPLITS.values(), 'all'})}")
    if not root.exists():
        raise BadData(f"{root} does not exist: give a folder of videos, a table, or a .zip of frames.")
    if root.is_file() and root.suffix.lower() == ".zip":
        return _expect(root, layout, _list_zip(root, split))
    if root.is_file():
        return _expect(root, layout, tables.list_table(root, columns, split))
    table = None if layout not in (None, "L7", "L8") else tables.find_table(root, columns)
    if table is not None:
        return _expect(root, layout, tables.list_table(table, columns, split))
    tree = _walk(root)
    if layout in ("L4", "L5") or (layout is None and not tree.videos and tree.images):
        listing = _list_frames(tree, layout, split)
    else:
        listing = _list_videos(tree, layout, split, class_prompts or {})
    if not listing.sources and not listing.problems:
        held = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(tree.others.items()))
        raise BadData(f"{root} holds no videos ({held or 'it is empty'}): expected videos, frame folders or a table.")
    return _expect(root, layout, listing)


def class_words(name: str) -> str:
    """Turn a class name into words: "ApplyEyeMakeup" -> "apply eye makeup", "TVShow_night" -> "tv show night"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-\s]+", " ", name)
    return " ".join(spaced.lower().split())


@dataclass
class _Tree:
    root: Path
    videos: list[PurePosixPath]  # relative paths, sorted
    images: dict[PurePosixPath, list[str]]  # folder -> names
    sidecars: set[PurePosixPath]  # .txt and .json
    others: Counter[str]


def _walk(root: Path) -> _Tree:
    tree = _Tree(root, [], {}, set(), Counter())
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in VIDEOS:
                tree.videos.append(here / name)
            elif suffix in IMAGE_SUFFIXES:
                tree.images.setdefault(here, []).append(name)
            else:
                tree.others[suffix] += 1
                if suffix in (".txt", ".json"):
                    tree.sidecars.add(here / name)
    tree.videos.sort()
    return tree


def _list_videos(tree: _Tree, layout: str | None, split: str | None, class_prompts: Mapping[str, str]) -> Listing:
    depths = {len(path.parts) for path in tree.videos}
    tops = {path.parts[0] for path in tree.videos if len(path.parts) > 1}
    by_split = bool(tops) and 1 not in depths and all(top.lower() in SPLITS for top in tops)
    if layout is None:
        if by_split:
            layout = "L2" if depths == {3} and len({path.parts[1] for path in tree.videos}) > 1 else "L3"
        else:
            layout = "L1" if depths == {2} and len(tops) > 1 else "L3"
    depth = {"L1": 2, "L2": 3}.get(layout)
    if layout == "L2" and not by_split:
        raise BadData(f"{tree.root} is not L2: expected only the folders train, test and val at its top.")
    chosen, split = _choose_split(tree, tree.videos, by_split and layout != "L1", split)
    problems = [
        (str(path), f"not at the depth of {LAYOUTS[layout]} ({layout})")
        for path in chosen
        if depth is not None and len(path.parts) != depth
    ]
    chosen = [path for path in chosen if depth is None or len(path.parts) == depth]
    classes = tuple(sorted({path.parts[-2] for path in chosen})) if depth else ()
    labels = {name: label for label, name in enumerate(classes)}
    sources, used = [], Counter[str]()
    for path in chosen:
        prompts, sidecar = _sidecar(tree, path.with_suffix(""))
        used[sidecar] += bool(sidecar)
        name = path.parts[-2] if classes else ""
        if not prompts and name:
            prompts = (class_prompts.get(name, class_words(name)),)
        sources.append(Source(tree.root / path, str(path), prompts=prompts, label=labels.get(name)))
    ignored = tree.others - used + Counter({"images": sum(len(names) for names in tree.images.values())})
    return Listing(layout, split, tuple(sources), classes, tuple(problems), +ignored)


def _list_frames(tree: _Tree, layout: str | None, split: str | None) -> Listing:
    folders = sorted(tree.images)
    tops = {path.parts[0] for path in folders if len(path.parts) > 1}
    by_split = bool(tops) and all(len(path.parts) > 1 and path.parts[0].lower() in SPLITS for path in folders)
    chosen, split = _choose_split(tree, folders, by_split, split)
    labelled = PurePosixPath("dataset.json") in tree.sidecars
    if layout is None:
        layout = "L5" if labelled and all(len(path.parts) == 1 for path in folders) else "L4"
    labels: dict[str, int] = {}
    if layout == "L5" and labelled:
        labels = _folder_labels((tree.root / "dataset.json").read_bytes(), tree.root / "dataset.json")
    sources, problems = [], []
    for folder in chosen:
        if layout == "L5" and len(folder.parts) != 1:
            problems.append((str(folder), "L5 wants each frame folder right below the root"))
            continue
        try:
            frames = pack_names(order_frames(tree.root / folder, tree.images[folder]))
        except BadVideo as error:
            problems.append((str(folder), str(error)))
            continue
        prompts, _ = _sidecar(tree, folder) if folder.parts else ((), "")
        sources.append(Source(tree.root / folder, str(folder), frames, prompts, labels.get(str(folder))))
    ignored = tree.others + Counter({"videos": len(tree.videos)})
    return Listing(layout, split, tuple(sources), (), tuple(problems), +ignored)


def _list_zip(root: Path, split: str | None) -> Listing:
    try:
        with zipfile.ZipFile(root) as archive:
            names = sorted(archive.namelist())
            labels = {}
            if "dataset.json" in names:
                labels = _folder_labels(archive.read("dataset.json"), root / "dataset.json")
    except (zipfile.BadZipFile, OSError) as error:
        raise BadData(f"{root} cannot be read as a .zip: {error}.") from None
    folders: dict[str, list[str]] = {}
    ignored: Counter[str] = Counter()
    for name in names:
        path = PurePosixPath(name)
        if len(path.parts) == 2 and path.suffix.lower() in IMAGE_SUFFIXES:
            folders.setdefault(path.parts[0], []).append(path.name)
        elif not name.endswith("/") and name != "dataset.json":
            ignored[path.suffix.lower()] += 1
    sources, problems = [], []
    for folder, files in folders.items():
        try:
            frames = pack_names([f"{folder}/{file}" for file in order_frames(root / folder, files)])
        except BadVideo as error:
            problems.append((folder, str(error)))
            continue
        sources.append(Source(root, folder, frames, label=labels.get(folder)))
    if not sources and not problems:
        raise BadData(f"{root} holds no frames as <video>/<frame>.jpg.")
    return Listing("L5", split or _split_of(root), tuple(sources), (), tuple(problems), +ignored)


def _folder_labels(content: bytes, path: Path) -> dict[str, int]:
    """Read StyleGAN-V's ``{"labels": [["<video>/<frame>.jpg" or "<video>", class], ...]}``, one label per folder."""
    try:
        rows = json.loads(content).get("labels") or []
        return {PurePosixPath(name).parts[0]: int(label) for name, label in rows}
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise BadData(f"{path} is not of the form {{'labels': [[path, class], ...]}} ({error}).") from None


def _choose_split(
    tree: _Tree, paths: list[PurePosixPath], by_split: bool, split: str | None
) -> tuple[list[PurePosixPath], str]:
    """Keep the paths of a split; the second value is the split that they belong to."""
    if not by_split:
        own = _split_of(tree.root)
        if split not in (None, "all", own) and own != "unknown":
            raise BadData(f"{tree.root} looks like the split '{own}', not '{split}': give the folder of '{split}'.")
        return paths, split or own
    there = {SPLITS[path.parts[0].lower()] for path in paths}
    split = split or ("train" if "train" in there else "all")
    if split != "all" and split not in there:
        raise BadData(f"{tree.root} has no split '{split}': it has {', '.join(sorted(there))}.")
    return [path for path in paths if split in ("all", SPLITS[path.parts[0].lower()])], split


def _split_of(root: Path) -> str:
    """Read the split from a folder's own name: sky_train, frames/test; parents count for one level."""
    for name in (root.stem, root.resolve().parent.name):
        last = re.split(r"[_\-. ]", name.lower())[-1]
        if last in SPLITS:
            return SPLITS[last]
    return "unknown"


def _sidecar(tree: _Tree, base: PurePosixPath) -> tuple[tuple[str, ...], str]:
    """Return the prompts in ``<base>.txt`` or ``<base>.json``, and the suffix of the one that is there ("" if none)."""
    for suffix in (".txt", ".json"):
        path = base.parent / f"{base.name}{suffix}"
        if path not in tree.sidecars:
            continue
        text = (tree.root / path).read_text(errors="replace").strip()
        if suffix == ".txt":
            return ((text,) if text else ()), suffix
        try:
            fields = json.loads(text)
        except ValueError:
            return (), ""
        return prompts_of(fields) if isinstance(fields, dict) else (), suffix
    return (), ""


def prompts_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Collect the prompt and its paraphrases from prompt, caption, text, prompts and captions, without repeats."""
    found: dict[str, None] = {}
    for key in ("prompt", "caption", "text", "prompts", "captions"):
        value = fields.get(key)
        values = value if isinstance(value, list) else [value]
        found.update({text.strip(): None for text in values if isinstance(text, str) and text.strip()})
    return tuple(found)


def _expect(root: Path, layout: str | None, listing: Listing) -> Listing:
    if layout is not None and listing.layout != layout:
        raise BadData(
            f"{root} is {listing.layout} ({LAYOUTS[listing.layout]}), not {layout} ({LAYOUTS[layout]}): "
            "leave the layout out to take what is there."
        )
    return listing
