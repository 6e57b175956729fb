"""Scenes as a data set: rendered on access, or ahead of time into shards that are memory-mapped.

A pre-rendered folder::

    index.json          format, scene options, first seed, count, sizes, fps, clips per shard
    pixels-000000.npy   uint8 (n, T, H, W, 3): clips 0 .. n-1, then pixels-000250.npy, and so on

Clip ``i`` is ``sample_scene(first_seed + i, options)``, so nothing but pixels is stored: captions and attributes follow
from the seed. The index is written first and every shard is renamed into place, so an interrupted run leaves a folder
that can be opened and that the next run completes.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtake.data.order import draw_prompt, split_key
from longtake.data.scenes.classes import class_names, class_number
from longtake.data.scenes.rendering import render_scenes
from longtake.data.scenes.sampling import STARTER, SceneOptions, sample_scene
from longtake.data.scenes.sound import scene_sound
from longtake.data.scenes.truth import instance_maps
from longtake.data.scenes.world import COLOURS, FPS, MOTIONS, SHAPES, Scene
from longtake.data.spectrogram import spectrogram
from longtake.errors import BadData, BadInput, BadOutput, UnknownName, nearest
from longtake.video import from_uint8, to_uint8

FORMAT = "longtake.scenes/1"
CLASSES = (tuple(COLOURS), SHAPES, MOTIONS)
"""What "classes" of an item of `SceneDataset` index."""
SOUNDS = ("none", "beside", "alone")
"""Whether items of `SceneDataset` hold sound, and pictures."""
TOGETHER = 25
"""Clips that a GPU renders at a time."""
INSTANCE_SCALE = 4
"""Pixels on a side of what an entry of "instances" stands for."""


@dataclass(frozen=True)
class SceneIndex:
    """Which clips a data set holds; the content of ``index.json``.

    Attributes:
        options: what worlds are drawn. first_seed: seed of clip 0. count: clips in the whole set.
        frames, height, width, fps: of every clip. shard: clips per file.
    """

    options: SceneOptions = STARTER
    first_seed: int = 0
    count: int = 100_000
    frames: int = 17
    height: int = 64
    width: int = 64
    fps: float = FPS
    shard: int = 250

    def __post_init__(self) -> None:
        for name in ("count", "frames", "height", "width", "fps", "shard"):
            if getattr(self, name) <= 0:
                raise BadInput(f"scenes with {name} {getattr(self, name)}: expected a number above zero.")

    @property
    def starts(self) -> range:
        """The first clip of each shard."""
        return range(0, self.count, self.shard)

    def shard_shape(self, start: int) -> tuple[int, ...]:
        """Shape (n, T, H, W, 3) of the shard that begins with clip `start`."""
        return (min(self.shard, self.count - start), self.frames, self.height, self.width, 3)

    def scene(self, index: int) -> Scene:
        """The scene behind clip `index`."""
        return sample_scene(self.first_seed + index, self.options)

    def render(self, index: int) -> Tensor:
        """Clip `index` as bytes: uint8 (T, H, W, 3)."""
        pixels = render_scenes([self.scene(index)], self.frames, self.height, self.width, fps=self.fps)
        return to_uint8(pixels)[0]


def shard_name(start: int) -> str:
    """File name of the shard that begins with clip `start`."""
    return f"pixels-{start:06d}.npy"


def read_index(root: str | Path) -> SceneIndex:
    """Read the index of a pre-rendered folder.

    Raises:
        BadData: there is none, or it is not one that this version reads.
    """
    path = Path(root) / "index.json"
    try:
        data = json.loads(path.read_text())
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.pop("options").items()}
        return SceneIndex(options=SceneOptions(**options), **data)
    except FileNotFoundError:
        raise BadData(f"No pre-rendered scenes in {root}: index.json is missing; prerender writes it.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
        raise BadData(f"{path} is not a {FORMAT} index ({error}): delete the folder and render again.") from None


def write_index(root: str | Path, index: SceneIndex) -> None:
    """Write ``index.json`` into a folder of shards.

    Raises:
        BadOutput: the folder cannot be written.
    """
    text = json.dumps({"format": FORMAT, **asdict(index)}, indent=1)
    _replace(Path(root) / "index.json", lambda path: path.write_text(text))


def prerender(
    out: str | Path,
    count: int,
    options: SceneOptions = STARTER,
    *,
    first_seed: int = 0,
    frames: int = 17,
    height: int = 64,
    width: int = 64,
    fps: float = FPS,
    shard: int = 250,
    workers: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> SceneIndex:
    """Render clips into shards; go on if some are there.

    A larger `count` than before extends the folder, a smaller one leaves it as large as it is.

    Args:
        out: the folder, made if missing (its parent must exist).
        count: clips; clip ``i`` is ``sample_scene(first_seed + i, options)``.
        frames, height, width, fps: of every clip.
        shard: clips per file, the most that an interruption loses.
        workers: processes that render; 0 renders in this one. A GPU renders in this one, whatever they are.
        device: where, "cpu" or "cuda", which made the same bytes of the clips that were compared (4,000 clips of 64 frames
            of 64x64 take an H200 8 seconds).

    Returns:
        The index of the folder, of which at least `count` clips are rendered.

    Raises:
        BadData: the folder holds scenes of other options, seeds or sizes.
        BadOutput: the folder cannot be made or written.
    """
    out = Path(out)
    index = SceneIndex(options, first_seed, count, frames, height, width, fps, shard)
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise BadOutput(f"Cannot make the folder {out}: {error.strerror}.") from None
    if (out / "index.json").exists():
        begun = read_index(out)
        _agree(out, begun, index)
        index = replace(index, count=max(count, begun.count))
    write_index(out, index)
    missing = [start for start in index.starts if start < count and _stored(out, index, start) is None]
    clips = [clip for start in missing for clip in range(start, start + index.shard_shape(start)[0])]
    if device == "cpu":
        rendered = iter(DataLoader(_Renderer(index), batch_size=None, sampler=clips, num_workers=workers))
    else:
        rendered = _rendered_together(index, clips, device)
    bar = iter(track(range(len(clips)), "Rendering", disable=not progress))
    for start in missing:
        pixels = np.empty(index.shard_shape(start), np.uint8)
        for row in range(len(pixels)):
            next(bar)
            pixels[row] = next(rendered).numpy()
        _replace(out / shard_name(start), lambda path, pixels=pixels: _save(path, pixels))
    next(bar, None)
    return index


class SceneDataset(Dataset[dict[str, Any]]):
    """Clips of scenes, map-style: taken from a pre-rendered folder, or rendered on access where it has none.

    An item is {"pixels": float (3, T, H, W) in [-1, 1], "prompt": str, "prompts": all captions (the plain one first),
    "fps": float, "source": "scene SEED", "attributes": dict}. Pixels are whole byte levels either way, so an item does
    not depend on what has been rendered ahead. With `semantics` it also has "instances": uint8 (T, H/4, W/4), 0 where
    the background is and n where the n-th object is; and "classes": uint8 (2, 3), of each object its colour, shape and
    motion as indices into COLOURS, SHAPES and MOTIONS of `world` (0 where there is no second object). With `labels` it
    has "label": int, the number of the scene's class among the data set's `class_names`. With `sound` "beside" it has
    "sound": the spectrogram (1, T, 64, 16) of `longtake.data.spectrogram`; with "alone" that is its "pixels", and no
    picture is rendered.

    A key is an index or an (epoch, index) pair; an index means epoch 0. The prompt is the plain caption half of the
    time and else one of its paraphrases, as a pure function of (seed, epoch, index).

    Args:
        root: folder of `prerender`; None renders every clip on access. Shards that are missing, because a run is
            still at work or was interrupted, are rendered on access too.
        options, first_seed, frames, height, width, fps: which clips. With a root they may be left out, for its index
            says them, and must agree with it where given.
        count: clips; with a root the first so many of it (default: all), else 100,000 by default.
        seed: for the choice of prompts. plain: always the plain caption. semantics, labels, sound: see above.

    Raises:
        BadInput: labels of scenes of two objects. UnknownName: another word than SOUNDS.
        BadData: no pre-rendered folder at root, one of other scenes or sizes, or one with fewer clips.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        options: SceneOptions | None = None,
        first_seed: int | None = None,
        count: int | None = None,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        seed: int = 0,
        plain: bool = False,
        semantics: bool = False,
        labels: bool = False,
        sound: str = "none",
    ) -> None:
        if sound not in SOUNDS:
            raise UnknownName(f"sound of scenes is not '{sound}'.{nearest(sound, SOUNDS)}")
        asked = {
            "options": options,
            "first_seed": first_seed,
            "frames": frames,
            "height": height,
            "width": width,
            "fps": fps,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        if root is None:
            self.index = SceneIndex(**given, count=100_000 if count is None else count)
            self.root = None
        else:
            self.root, self.index = Path(root), read_index(root)
            _agree(self.root, self.index, SceneIndex(**{**_fields(self.index), **given}))
            if count is not None and count > self.index.count:
                raise BadData(f"{root} is a set of {self.index.count} clips, not of {count}: prerender the others.")
        self.count = self.index.count if count is None else count
        self.seed, self.plain, self.semantics, self.sound = seed, plain, semantics, sound
        self.class_names = class_names(self.index.options) if labels else ()
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = split_key(key, len(self))
        scene = self.index.scene(index)
        captions, alone = scene.captions, self.sound == "alone"
        item = {
            "pixels": self._heard(scene) if alone else from_uint8(self._pixels(index)),
            "prompt": captions[0] if self.plain else draw_prompt(captions, self.seed, epoch, index),
            "prompts": list(captions),
            "fps": self.index.fps,
            "source": f"scene {scene.seed}",
            "attributes": scene.attributes,
        }
        if self.semantics:
            item |= self._semantics(scene)
        if self.sound == "beside":
            item["sound"] = self._heard(scene)
        if self.class_names:
            item["label"] = class_number(scene, self.index.options)
        return item

    def _heard(self, scene: Scene) -> Tensor:
        frames, fps = self.index.frames, self.index.fps
        return spectrogram(scene_sound(scene, frames, fps=fps), frames, fps)

    def _semantics(self, scene: Scene) -> dict[str, Tensor]:
        i = self.index
        size = (max(1, i.height // INSTANCE_SCALE), max(1, i.width // INSTANCE_SCALE))
        classes = torch.zeros(2, 3, dtype=torch.uint8)
        for row, thing in zip(classes, scene.objects, strict=False):
            names = (thing.garment.colour, thing.identity.shape, thing.motion.kind)
            row[:] = torch.tensor([list(known).index(name) for known, name in zip(CLASSES, names, strict=True)])
        return {"instances": instance_maps([scene], i.frames, *size, fps=i.fps)[0], "classes": classes}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a memory map would be copied whole into a worker process

    @property
    def rendered(self) -> int:
        """How many of the clips are in the folder now."""
        if self.root is None:
            return 0
        there = [start for start in self.index.starts if _stored(self.root, self.index, start) is not None]
        return sum(max(0, min(self.index.shard, self.count - start)) for start in there)

    def scene(self, index: int) -> Scene:
        """The scene behind clip `index`."""
        return self.index.scene(index)

    def _pixels(self, index: int) -> Tensor:
        start = index - index % self.index.shard
        if self.root is not None and start not in self._maps:
            stored = _stored(self.root, self.index, start)
            if stored is not None:
                self._maps[start] = stored
        if start in self._maps:
            return torch.from_numpy(self._maps[start][index - start].copy())
        return self.index.render(index)


def _rendered_together(index: SceneIndex, clips: list[int], device: str) -> Iterator[Tensor]:
    """Clips as bytes, `TOGETHER` of them at a time."""
    for first in range(0, len(clips), TOGETHER):
        scenes = [index.scene(clip) for clip in clips[first : first + TOGETHER]]
        pixels = render_scenes(scenes, index.frames, index.height, index.width, fps=index.fps, device=device)
        yield from to_uint8(pixels).cpu()


class _Renderer(Dataset[Tensor]):
    """Clips as bytes, for the worker processes of `prerender`."""

    def __init__(self, index: SceneIndex) -> None:
        self.index = index

    def __getitem__(self, clip: int) -> Tensor:
        return self.index.render(clip)


def _fields(index: SceneIndex) -> dict[str, Any]:
    return {f.name: getattr(index, f.name) for f in fields(index)}


def _agree(root: Path, stored: SceneIndex, wanted: SceneIndex) -> None:
    for f in fields(SceneIndex):
        old, new = getattr(stored, f.name), getattr(wanted, f.name)
        if f.name != "count" and old != new:
            raise BadData(f"{root} holds scenes of another {f.name} ({old}, not {new}): choose another folder.")


def _stored(root: Path, index: SceneIndex, start: int) -> np.ndarray | None:
    """Memory-map a shard; None if it is not there, or is the shorter last shard of a set that has grown since."""
    path = root / shard_name(start)
    if not path.exists():
        return None
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadData(f"Cannot read {path} ({error}): delete it and render again.") from None
    shape = index.shard_shape(start)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape[1:]:
        raise BadData(f"{path} holds {pixels.dtype} {pixels.shape}, the index says uint8 {shape}: delete it.")
    return pixels if len(pixels) >= shape[0] else None


def _save(path: Path, pixels: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, pixels, allow_pickle=False)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise BadOutput(f"Cannot write {path}: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)
