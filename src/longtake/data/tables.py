"""Tables and lists that name videos and their prompts: CSV, TSV, JSONL, JSON, Parquet (L7), two text files (L8).

The columns are ``video`` and ``prompt``, and if wanted ``start``, ``end`` (seconds, h:mm:ss, or frames with
``unit: frames``) and ``class``. Other names are mapped with `columns`; ``video`` may be a pattern over several columns,
so the published text-to-video tables are mappings and nothing else, kept in `KNOWN_TABLES`. A cell that is a list
(prompts, starts, ends) makes one piece of the video per entry.
"""

import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from longtake.data.layouts import TABLES, Listing, Source
from longtake.errors import BadData, UnknownName, nearest

KNOWN_TABLES: dict[str, dict[str, str]] = {
    "webvid": {"video": "{page_dir}/{videoid}.mp4", "prompt": "name"},
    "panda-70m": {"video": "{videoID}.mp4", "prompt": "caption", "start": "timestamp"},
    "openvid": {"video": "video", "prompt": "caption"},
    "internvid": {"video": "{YoutubeID}.mp4", "prompt": "Caption", "start": "Start_timestamp", "end": "End_timestamp"},
}
_ALIASES = {
    "video": ("video", "path", "file", "file_name", "filename", "video_path", "video_file"),
    "prompt": ("prompt", "caption", "text", "prompts", "captions", "description"),
    "start": ("start", "start_time", "begin"),
    "end": ("end", "end_time", "stop"),
    "class": ("class", "label"),
    "unit": ("unit",),
}


def find_table(folder: Path, columns: Mapping[str, str] | None = None) -> Path | None:
    """Return the table, or ``prompts.txt`` of a pair of lists, at the top of a folder; None if there is none.

    Raises:
        BadData: several tables, none of them called metadata; or one called so that cannot be read.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TABLES or not path.is_file():
            continue
        try:
            names = next(iter(_rows(path)), {}).keys()
        except BadData:
            if path.stem == "metadata":
                raise
            continue  # something else, a log for one
        if _column("video", names, columns) is not None:
            found.append(path)
    preferred = [path for path in found if path.stem == "metadata"]
    if len(found) > 1 and len(preferred) != 1:
        raise BadData(f"{folder} holds several tables ({', '.join(path.name for path in found)}): give one of them.")
    if found:
        return (preferred or found)[0]
    lists = folder / "prompts.txt", folder / "videos.txt"
    return lists[0] if all(path.is_file() for path in lists) else None


def list_table(path: Path, columns: Mapping[str, str] | None = None, split: str | None = None) -> Listing:
    """List the videos that a table names; paths are relative to the table's folder, or to ``videos/`` in it.

    Args:
        path: the table, or one of ``prompts.txt`` and ``videos.txt``.
        columns: own column names, ``{"video": "clip_path", "prompt": "title"}``, or ``{"table": "webvid"}``.
        split: recorded as it is.

    Raises:
        BadData: a column is missing, the lists differ in length, or the file cannot be read as a table.
    """
    if path.suffix.lower() == ".txt":
        return _list_pair(path, split)
    columns = _known(columns)
    rows = list(_rows(path))
    if not rows:
        raise BadData(f"{path} has no rows: expected a header with video and prompt, and one row per video.")
    there = dict.fromkeys(name for row in rows for name in row)  # rows of JSON may leave columns out
    names = {role: _column(role, there, columns) for role in _ALIASES}
    if names["video"] is None:
        known = ", ".join(map(str, there))
        raise BadData(f"{path} has no column 'video' (it has {known}): rename it, or map it with columns.")
    classes = tuple(sorted({str(row.get(names["class"])) for row in rows})) if names["class"] else ()
    labels = {name: label for label, name in enumerate(classes)}
    sources, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            pieces = _pieces(path, row, names)
        except (ValueError, KeyError, TypeError) as error:
            problems.append((f"{path.name} row {number}", f"cannot be read: {error}"))
            continue
        label = labels.get(str(row.get(names["class"] or "")))
        sources += [Source(label=label, **piece) for piece in pieces]
    return Listing("L7", split or "unknown", tuple(sources), classes, tuple(problems))


def seconds_of(value: Any) -> float | None:
    """Read a time: 12.5, "12.5", "0:00:12.500"; None and "" stay None.

    Raises:
        ValueError: it is neither.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    parts = [float(part) for part in str(value).split(":")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def _known(columns: Mapping[str, str] | None) -> Mapping[str, str]:
    columns = dict(columns or {})
    table = columns.pop("table", None)
    if table is not None and table not in KNOWN_TABLES:
        raise UnknownName(f"Unknown table '{table}'.{nearest(table, KNOWN_TABLES)}")
    unknown = next((role for role in columns if role not in _ALIASES), None)
    if unknown is not None:
        raise UnknownName(f"Unknown column role '{unknown}'.{nearest(unknown, _ALIASES)}")
    return {**KNOWN_TABLES.get(table or "", {}), **columns}


def _column(role: str, names: Any, columns: Mapping[str, str] | None) -> str | None:
    """Return the column (or pattern) that plays a role, or None if the table has none."""
    columns = _known(columns)
    if role in columns:
        wanted = columns[role]
        return wanted if all(name in names for name in re.findall(r"{(\w+)}", wanted) or [wanted]) else None
    lower = {name.strip().lower(): name for name in names if isinstance(name, str)}
    return next((lower[alias] for alias in _ALIASES[role] if alias in lower), None)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        with path.open(newline="", encoding="utf-8-sig") as file:
            if suffix in (".csv", ".tsv"):
                yield from csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")
            elif suffix == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
            elif suffix == ".json":
                yield from _json_rows(json.load(file))
            else:
                raise BadData(f"{path} is not a table: expected {', '.join(sorted(TABLES))} or .json.")
    except (OSError, ValueError, csv.Error) as error:
        raise BadData(f"{path} cannot be read as a table: {error}.") from None


def _json_rows(content: Any) -> Iterator[dict[str, Any]]:
    """A list of rows, or MSR-VTT's {"videos": [...], "sentences": [...]}."""
    if isinstance(content, dict) and {"videos", "sentences"} <= content.keys():
        captions: dict[str, list[str]] = {}
        for sentence in content["sentences"]:
            captions.setdefault(sentence["video_id"], []).append(sentence["caption"])
        for video in content["videos"]:
            prompts = captions.get(video["video_id"], [])
            yield {"video": f"{video['video_id']}.mp4", "prompts": "\n".join(prompts), "class": video.get("category")}
        return
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("expected a list of objects")
    yield from content


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BadData(f"{path} is Parquet: run 'pip install pyarrow', or save it as CSV or JSONL.") from None
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _pieces(table: Path, row: dict[str, Any], names: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return the arguments of one `Source` per piece that a row names."""
    pattern = names["video"] or ""
    name = pattern.format(**row) if "{" in pattern else str(row[pattern])
    if not name.strip():
        raise ValueError("no video")
    candidates = [table.parent / name, table.parent / "videos" / name]
    path = next((path for path in candidates if path.exists()), candidates[0])
    prompt, start, end = (_cell(row.get(names[role] or "")) for role in ("prompt", "start", "end"))
    unit = str(row.get(names["unit"] or "") or "seconds")
    if unit not in ("seconds", "frames"):
        raise ValueError(f"unit is '{unit}', expected seconds or frames")
    if not isinstance(start, list):
        texts = prompt if isinstance(prompt, list) else str(prompt or "").split("\n")
        prompts = tuple(dict.fromkeys(str(text).strip() for text in texts if str(text).strip()))
        begin, stop = seconds_of(start), seconds_of(end)
        piece = "" if begin is None and stop is None else f"[{begin or 0:g}-{'' if stop is None else f'{stop:g}'}]"
        return [{"path": path, "name": f"{name}{piece}", "prompts": prompts, "start": begin, "end": stop, "unit": unit}]
    spans = [span if isinstance(span, list) else [span, end[i]] for i, span in enumerate(start)]
    prompts = prompt if isinstance(prompt, list) else [prompt] * len(spans)
    pieces = []
    for span, text in zip(spans, prompts, strict=True):
        begin, stop = (seconds_of(value) for value in span)
        pieces.append(
            {
                "path": path,
                "name": f"{name}[{begin:g}-{stop:g}]",
                "prompts": (str(text).strip(),) if text else (),
                "start": begin,
                "end": stop,
                "unit": unit,
            }
        )
    return pieces


def _cell(value: Any) -> Any:
    """A list that a CSV cell holds as text, ``['0:00:01', '0:00:04']``, becomes a list."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return value


def _list_pair(path: Path, split: str | None) -> Listing:
    prompts, videos = (
        (path.parent / name).read_text(encoding="utf-8").splitlines() for name in ("prompts.txt", "videos.txt")
    )
    prompts = [line.strip() for line in prompts if line.strip()]
    videos = [line.strip() for line in videos if line.strip()]
    if len(prompts) != len(videos):
        raise BadData(
            f"{path.parent}: prompts.txt has {len(prompts)} lines and videos.txt {len(videos)}: make them one."
        )
    sources = tuple(
        Source(path.parent / video, video, prompts=(prompt,)) for prompt, video in zip(prompts, videos, strict=True)
    )
    return Listing("L8", split or "unknown", sources)
