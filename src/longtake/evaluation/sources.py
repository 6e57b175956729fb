"""What is measured: a folder or table of videos, frame folders, scenes, or a tensor. A source lists its videos and reads
frames of one of them by number; it holds no pixels but those of a tensor that it was given.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import torch
from torch import Tensor

from longtake.data.frames import read_frames
from longtake.data.presets import FolderOptions
from longtake.data.scenes import SceneDataset
from longtake.data.scenes.store import FORMAT as SCENES
from longtake.data.survey import Piece, survey
from longtake.errors import BadData, BadInput, BadVideo
from longtake.evaluation.prompts import asked, is_whole
from longtake.video import VideoReader, to_uint8


@dataclass(frozen=True)
class Video:
    """One video of a source.

    Attributes:
        name: what reports call it, unique in its source.
        frames: how many it has. height, width: of its pictures in pixels. fps: frames per second.
        prompt: what it was made from or is said to show; empty if nothing is known.
        attributes: the scene attributes that it shows or was asked for (`Scene.attributes`), or None.
        mp4, jpeg: its frames come out of an .mp4, or out of JPEG files.
    """

    name: str
    frames: int
    height: int
    width: int
    fps: float
    prompt: str = ""
    attributes: dict[str, Any] | None = None
    mp4: bool = False
    jpeg: bool = False


class ClipSource(Interface):
    """Videos to measure.

    Attributes:
        name: what reports call the source. videos: in a fixed order.
        problems: (name, reason) of every file that cannot be used.
    """

    name: str
    videos: tuple[Video, ...]
    problems: tuple[tuple[str, str], ...]

    def read(self, number: int, frames: Sequence[int]) -> Tensor:
        """Return frames of a video: uint8 (T, H, W, 3). Raises BadVideo when one cannot be decoded."""
        ...

    def digest(self, number: int, frames: Sequence[int]) -> str:
        """Return a hash of what `read` would return, without decoding it: equal content, equal hash, whatever its name."""
        ...


def open_source(root: str | Path, split: str = "all", *, progress: bool = False) -> ClipSource:
    """Open a folder, a table, a .zip of frames, or a folder of scenes that were rendered ahead.

    Args:
        root: as `longtake data check` takes it. split: "train", "test", "val" or "all", where it is divided so.
        progress: show a bar while many videos are opened.

    Raises:
        BadData: nothing there, or nothing in it can be read.
    """
    if _holds_scenes(Path(root) / "index.json"):
        return SceneSource(SceneDataset(root, plain=True))
    return FolderSource(root, split, progress=progress)


class FolderSource:
    """Videos of a folder, a table or a .zip of frame folders, found and opened by `longtake.data`.

    Unreadable ones are left out and listed in `problems`. Attributes come from ``<name>.json`` beside a video, as
    `longtake data render` writes it, else from the prompt if that is a caption of a scene.
    """

    def __init__(self, root: str | Path, split: str = "all", *, progress: bool = False) -> None:
        options = FolderOptions(frames=1, split=split)
        found = survey(root, options, progress=progress)
        if not found.pieces:
            name, reason = found.problems[0]
            raise BadData(
                f"none of the {len(found.problems)} videos in {root} can be read (the first, {name}: {reason}): "
                "give a folder of videos or of frame folders."
            )
        pieces = sorted(found.pieces, key=lambda piece: piece.source.name)
        self.name = str(root)
        self.problems = tuple(found.problems)
        self.videos = tuple(map(_video, pieces))
        self._pieces = pieces
        self._digests: dict[Path, str] = {}
        self._archives: dict[tuple[int, Path], zipfile.ZipFile] = {}
        self._readers: dict[int, VideoReader] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archives": {}, "_readers": {}}  # open files do not travel to worker processes

    def read(self, number: int, frames: Sequence[int]) -> Tensor:
        """Return frames of a video: uint8 (T, H, W, 3). Raises BadVideo when one cannot be decoded."""
        piece = self._pieces[number]
        source, numbers = piece.source, [piece.first + frame for frame in frames]
        if source.frames:
            return read_frames(source.path, source.frames, numbers, self._archive(source.path))
        # The last video stays open and keeps its place; one reader per process, as in `longtake.data.folder`.
        reader = self._readers.get(os.getpid())
        if reader is None or reader.path != source.path:
            if reader is not None:
                reader.close()
            threads = None if torch.utils.data.get_worker_info() is None else 1
            reader = VideoReader(source.path, threads=threads, index=piece.facts.index)
            self._readers[os.getpid()] = reader
        return reader.frames(numbers)

    def digest(self, number: int, frames: Sequence[int]) -> str:
        """Hash the file's bytes, or those of the frames' files, with the numbers of the frames."""
        piece = self._pieces[number]
        numbers = [piece.first + frame for frame in frames]
        source = piece.source
        try:
            if not source.frames:
                if source.path not in self._digests:
                    with source.path.open("rb") as file:
                        self._digests[source.path] = hashlib.file_digest(file, "sha256").hexdigest()
                return f"{self._digests[source.path]}:{_runs(numbers)}"
            whole = hashlib.sha256()
            for frame in numbers:
                whole.update(self._bytes(source.path, source.frames[frame]))
            return whole.hexdigest()
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise BadVideo(f"{source.name} cannot be read: {error}.") from None

    def _bytes(self, path: Path, name: str) -> bytes:
        archive = self._archive(path)
        return (path / name).read_bytes() if archive is None else archive.read(name)

    def _archive(self, path: Path) -> zipfile.ZipFile | None:
        if path.suffix.lower() != ".zip" or not path.is_file():
            return None
        key = (os.getpid(), path)
        if key not in self._archives:
            self._archives[key] = zipfile.ZipFile(path)
        return self._archives[key]


class SceneSource:
    """Clips of a `SceneDataset`; a clip's hash is that of its scene, for pixels follow from it."""

    def __init__(self, scenes: SceneDataset, name: str | None = None) -> None:
        self.name = name or (str(scenes.root) if scenes.root else "scenes")
        self.problems: tuple[tuple[str, str], ...] = ()
        index = scenes.index
        self.videos = tuple(
            Video(
                f"scene {index.first_seed + number}",
                index.frames,
                index.height,
                index.width,
                index.fps,
                index.scene(number).caption,
                index.scene(number).attributes,
            )
            for number in range(len(scenes))
        )
        self._scenes = scenes

    def read(self, number: int, frames: Sequence[int]) -> Tensor:
        """Return frames of a clip: uint8 (T, H, W, 3)."""
        return to_uint8(self._scenes[number]["pixels"])[list(frames)]

    def digest(self, number: int, frames: Sequence[int]) -> str:
        """Hash the scene, the size and the numbers of the frames."""
        index = self._scenes.index
        told = [index.scene(number).to_json(), index.frames, index.height, index.width, index.fps, list(frames)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class TensorSource:
    """Clips of a tensor that is in memory already.

    Args:
        pixels: uint8, or float in [-1, 1], (N, 3, T, H, W). fps: of all of them.
        prompts, attributes: of each clip, where known. name: what reports call the source.
        rounding: how floats become bytes, "nearest" or "truncate".

    Raises:
        BadInput: another shape or kind.
    """

    def __init__(
        self,
        pixels: Tensor,
        fps: float = 8.0,
        *,
        prompts: Sequence[str] | None = None,
        attributes: Sequence[dict[str, Any] | None] | None = None,
        name: str = "tensor",
        rounding: str = "nearest",
    ) -> None:
        if pixels.ndim != 5 or pixels.shape[1] != 3 or 0 in pixels.shape:
            raise BadInput(f"clips to measure are (N, 3, T, H, W); these are {tuple(pixels.shape)}.")
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise BadInput(f"clips to measure are {pixels.dtype}; use uint8, or floats in [-1, 1].")
        count, _, frames, height, width = pixels.shape
        for what, given in (("prompts", prompts), ("attributes", attributes)):
            if given is not None and len(given) != count:
                raise BadInput(f"{len(given)} {what} came with {count} clips; one each.")
        self.name, self.problems = name, ()
        self.videos = tuple(
            Video(
                f"{number:06d}",
                frames,
                height,
                width,
                fps,
                prompts[number] if prompts else "",
                attributes[number] if attributes else None,
            )
            for number in range(count)
        )
        self._pixels, self._rounding = pixels, rounding

    def read(self, number: int, frames: Sequence[int]) -> Tensor:
        """Return frames of a clip: uint8 (T, H, W, 3)."""
        clip = self._pixels[number][:, list(frames)]
        if clip.dtype == torch.uint8:
            return clip.permute(1, 2, 3, 0).contiguous()
        if self._rounding == "truncate":
            levels = clip.detach().float().add(1).mul(127.5).clamp(0, 255).floor()
            return levels.to(torch.uint8).permute(1, 2, 3, 0).contiguous()
        return to_uint8(clip)

    def digest(self, number: int, frames: Sequence[int]) -> str:
        """Hash the bytes of the frames."""
        return hashlib.sha256(self.read(number, frames).numpy().tobytes()).hexdigest()


def _video(piece: Piece) -> Video:
    source, facts = piece.source, piece.facts
    suffix = (Path(source.frames[0]) if source.frames else source.path).suffix.lower()
    video = Video(
        source.name,
        piece.last - piece.first,
        facts.height,
        facts.width,
        facts.fps,
        source.prompts[0] if source.prompts else "",
        mp4=not source.frames and suffix in (".mp4", ".m4v"),
        jpeg=suffix in (".jpg", ".jpeg"),
    )
    return replace(video, attributes=_attributes(source.path, video.prompt))


def _attributes(path: Path, prompt: str) -> dict[str, Any] | None:
    try:
        told = json.loads(path.with_suffix(".json").read_text())["attributes"]
        return told if is_whole(told) else asked(prompt)
    except (OSError, ValueError, KeyError, TypeError):
        return asked(prompt)


def _holds_scenes(index: Path) -> bool:
    """Whether this is the index of scenes that were rendered ahead; folders of videos may have one of their own."""
    try:
        return json.loads(index.read_text()).get("format") == SCENES
    except (OSError, ValueError, AttributeError):
        return False


def _runs(numbers: Sequence[int]) -> str:
    """Frame numbers as first, count, step where they are even."""
    steps = {b - a for a, b in zip(numbers, numbers[1:], strict=False)}
    return f"{numbers[0]}+{len(numbers)}x{steps.pop()}" if len(steps) == 1 else ",".join(map(str, numbers))
