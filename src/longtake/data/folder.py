"""`VideoFolder`: a folder or table of real videos as training clips."""

import os
import re
import warnings
import zipfile
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtake.data.frames import read_frames
from longtake.data.order import draw_prompt, mix_seed, split_key
from longtake.data.presets import FolderOptions
from longtake.data.resize import resize_frames
from longtake.data.survey import Piece, survey
from longtake.data.windows import window_fps, window_frames
from longtake.errors import BadData, BadVideo
from longtake.video import VideoReader

ATTEMPTS = 16  # neighbours tried in place of a video that turns out to be damaged
_SIDES = re.compile(r"\b(left|right)(wards?)?\b", re.IGNORECASE)
_WINDOW, _FLIP = range(2)  # independent draws of one item


class VideoFolder(torch.utils.data.Dataset[dict[str, Any]]):
    """Clips of real videos, map-style.

    An item is {"pixels": float32 (3, T, H, W) in [-1, 1], "prompt": str, "fps": float, "source": str}, and "label": int
    where there are classes. A key is an index (epoch 0) or an (epoch, index) pair; window, mirroring and paraphrase are
    a pure function of (seed, epoch, index), in any process and any order.

    Opening the set opens every video once (see `longtake.data.survey`). Unreadable and short ones are left out and
    listed in `problems`. A video that turns out to be damaged only while a window of it is decoded gives way, with a
    warning, to the next item.

    Args:
        root: a folder, a table (CSV, TSV, JSONL, JSON, Parquet) or a .zip of frame folders; see
            `longtake.data.layouts`.
        options: preset and changes to it; see `FolderOptions`.
        seed: of all draws. progress: show a bar while videos are opened.

    Raises:
        BadData: nothing can be trained on (names the folder and the first reasons), or another layout than asked for.
        BadInput, UnknownName: an option is out of range or unknown.
    """

    def __init__(
        self, root: str | Path, options: FolderOptions | None = None, *, seed: int = 0, progress: bool = True
    ) -> None:
        self.options = options or FolderOptions()
        self.seed = seed
        found = survey(root, self.options, progress=progress)
        self.root, self.preset, self.pieces, self.problems = found.root, found.preset, found.pieces, found.problems
        self.layout, self.split, self.classes = found.listing.layout, found.listing.split, found.listing.classes
        if not self.pieces:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.problems[:3])
            more = f"; and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
            raise BadData(f"Nothing in {self.root} can be trained on. {reasons}{more}")
        each = [self._items(piece) for piece in self.pieces]
        self._ends = list(accumulate(each))
        self._archives: dict[tuple[int, Path], zipfile.ZipFile] = {}
        self._readers: dict[int, VideoReader] = {}
        self._damaged: set[Path] = set()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        return self.item(*reversed(split_key(key, len(self))))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archives": {}, "_readers": {}}  # open files do not travel to worker processes

    def item(self, index: int, epoch: int = 0) -> dict[str, Any]:
        """Return the item of an index in an epoch; the next readable one if its video is damaged.

        Raises:
            BadData: so many neighbours in a row are damaged that the data set must be.
        """
        reasons: list[str] = []
        for attempt in range(min(ATTEMPTS, len(self))):
            number = (index + attempt) % len(self)
            piece = self.piece(number)
            if piece.source.path in self._damaged:
                continue
            try:
                return self._read(piece, number, epoch)
            except BadVideo as error:
                if not piece.source.frames:
                    self._damaged.add(piece.source.path)
                warnings.warn(f"skipped: {error}", stacklevel=2)
                reasons.append(str(error))
        first = reasons[0] if reasons else "all of them are damaged"
        raise BadData(f"{min(ATTEMPTS, len(self))} videos in a row in {self.root} cannot be decoded: {first}")

    def piece(self, index: int) -> Piece:
        """Return the video (or piece of one) that an item comes from."""
        return self.pieces[bisect_right(self._ends, index)]

    def prompts(self, index: int) -> list[str]:
        """Return the prompt of an item and its paraphrases; empty if it has none."""
        return list(self.piece(index).source.prompts)

    @property
    def description(self) -> str:
        """One line that tells these clips from others: root, layout, split, preset and its numbers."""
        p = self.preset
        rate = "" if p.fps is None else f", {p.fps:g} fps"
        return (
            f"{self.root}, {self.layout}, split {self.split}, {p.name}: {p.frames}x{p.height}x{p.width}, "
            f"stride {p.stride}{rate}, {p.take} window, flip {p.flip:g}, seed {self.seed}, {len(self)} items"
        )

    def _items(self, piece: Piece) -> int:
        return -(-piece.windows // self.preset.every) if self.preset.take == "every" else 1

    def _draw(self, epoch: int, index: int, what: int) -> int:
        return mix_seed(self.seed, epoch, index, what)

    def _window(self, piece: Piece, index: int, epoch: int) -> int:
        if self.preset.take == "random":
            return self._draw(epoch, index, _WINDOW) % piece.windows
        if self.preset.take == "middle":
            return (piece.windows - 1) // 2
        before = self._ends[bisect_right(self._ends, index)] - self._items(piece)
        return (index - before) * self.preset.every

    def _read(self, piece: Piece, index: int, epoch: int) -> dict[str, Any]:
        preset, seconds = self.preset, piece.seconds
        local = window_frames(preset.rule, seconds, self._window(piece, index, epoch))
        frames = self._decode(piece, [piece.first + number for number in local])
        prompt = draw_prompt(piece.source.prompts or ("",), self.seed, epoch, index)
        published = preset.window != "ours"
        may_flip = published or not _SIDES.search(prompt)
        if may_flip and self._draw(epoch, index, _FLIP) % 2**32 < preset.flip * 2**32:
            frames = frames.flip(2)
        item = {
            "pixels": resize_frames(frames, preset.height, preset.width, preset.resize),
            "prompt": prompt,
            "fps": window_fps(preset.rule, seconds, piece.facts.fps, local),
            "source": piece.source.name,
        }
        if self.classes:
            item["label"] = -1 if piece.source.label is None else piece.source.label
        return item

    def _decode(self, piece: Piece, numbers: list[int]) -> Tensor:
        """Read frames by number: uint8 (T, H, W, 3)."""
        source = piece.source
        if source.frames:
            return read_frames(source.path, source.frames, numbers, self._archive(source.path))
        # The last video stays open and keeps its place: windows of one video in order decode nothing twice. One per
        # process: a reader that a fork brought along waits for threads that are not here when it is let go.
        reader = self._readers.get(os.getpid())
        if reader is None or reader.path != source.path:
            if reader is not None:
                reader.close()
            # One decoder thread per loader process; alone, as many as FFmpeg likes.
            threads = None if torch.utils.data.get_worker_info() is None else 1
            reader = VideoReader(source.path, threads=threads, index=piece.facts.index)
            self._readers[os.getpid()] = reader
        return reader.frames(numbers)

    def _archive(self, path: Path) -> zipfile.ZipFile | None:
        """Keep a .zip open, one handle per process: its list of contents can be long."""
        if path.suffix.lower() != ".zip" or not path.is_file():
            return None
        key = (os.getpid(), path)
        if key not in self._archives:
            self._archives[key] = zipfile.ZipFile(path)
        return self._archives[key]
