"""The data of a recipe: training set and held-out set, as pixels for a tokenizer, latents for a generator, or images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from longtake.data.order import Part, mix_seed, split_key
from longtake.errors import BadData, BadRecipe
from longtake.training.parallel import World, barrier
from longtake.training.recipe import DataRecipe, check_arguments, data_parts
from longtake.video import from_uint8, to_uint8

Pair = tuple[Any, Any]  # training set, held-out set
Sets = tuple[list[Any], Any]  # training sets, held-out set of the first


def pixel_data(data: DataRecipe, seed: int, world: World) -> Sets:
    """Clips {"pixels": (3, T, H, W) in [-1, 1], "prompt": str, "fps": float}; of the view "sound" (1, T, 64, 16).

    Raises:
        BadData: nothing to train on, or nothing to hold out of it. BadRecipe: sound of anything but scenes.
    """
    pairs = [_pixels(part, seed, world) for part in data_parts(data)]
    return [train for train, _ in pairs], pairs[0][1]


def latent_data(
    data: DataRecipe,
    seed: int,
    tokenizer: Any,
    world: World,
    keep: Sequence[str] = (),
    ears: "Ears | None" = None,
) -> Sets:
    """Latents, or ids, from a cache, or pixels that the task encodes as it goes where the recipe names no cache.

    `keep` names what items must have besides: "label", or "instances" and "classes" of scenes (see `SceneDataset`). With
    `ears` they have "sound": the ids of the scene's sound.
    """
    pairs = [_latents(part, seed, tokenizer, world, keep, ears) for part in data_parts(data)]
    return [train for train, _ in pairs], pairs[0][1]


def item_size(data: DataRecipe) -> tuple[int, int, int]:
    """Frames, height and width of what a tokenizer is trained on."""
    from longtake.data.spectrogram import COLUMNS, ROWS

    return (data.frames, ROWS, COLUMNS) if data.view == "sound" else (data.frames, data.height, data.width)


def image_data(data: DataRecipe, seed: int, world: World) -> Sets:
    """Single images of classes {"pixels": (3, 1, H, W) in [-1, 1], "label": int, "prompt": str}; see `image_classes`."""
    pairs = [_images(part, seed, world) for part in data_parts(data)]
    return [train for train, _ in pairs], pairs[0][1]


def image_classes(data: DataRecipe) -> tuple[str, ...]:
    """Names of the classes of single images: the folders of kind "images", shapes and colours of kind "scenes".

    Raises:
        BadRecipe: data of another kind, clips of several frames, or several data sets. BadData: no class folders.
    """
    if data.mix:
        raise BadRecipe("data.mix: several data sets have no classes in common; train a model of classes on one.")
    if data.view == "sound":
        raise BadRecipe("data.view: a classifier sees pictures; sound is for the task tokenizer.")
    if data.frames != 1:
        raise BadRecipe(f"data.frames: {data.frames}; a classifier sees single images: use 1.")
    if data.kind == "scenes":
        from longtake.data.scenes.classes import frame_class_names

        return frame_class_names(_scene_options(data))
    if data.kind == "images" and data.root is not None:
        from longtake.data.image_folder import image_class_names

        return image_class_names(data.root)
    raise BadRecipe(f"data: a classifier is trained on scenes or on images with a root; this is {data.kind}.")


def _images(data: DataRecipe, seed: int, world: World) -> Pair:
    if data.kind == "images":
        from longtake.data.image_folder import ImageFolder

        assert data.root is not None  # `image_classes` has looked
        return _split(ImageFolder(data.root, data.height, data.width, flip=data.flip or 0.0, seed=seed), data)
    names = image_classes(data)
    train, held_out = _scenes(data, seed, world)
    return FramesOfClasses(train, names), FramesOfClasses(held_out, names)


def _pixels(data: DataRecipe, seed: int, world: World, keep: Sequence[str] = ()) -> Pair:
    if data.kind != "scenes" and (data.view == "sound" or "sound" in keep):
        raise BadRecipe(f"data.kind: {data.kind}; sound is that of scenes, use kind scenes.")
    if data.kind == "latents":
        raise BadRecipe("data.kind: a tokenizer is trained on pixels; use scenes or videos.")
    if data.cut == "latents":
        raise BadRecipe("data.cut: latents; a tokenizer is trained on pixels; use pixels.")
    if data.kind == "images":
        raise BadRecipe("data.kind: images are for the task classifier; use scenes or videos.")
    return _videos(data, seed) if data.kind == "videos" else _scenes(data, seed, world, keep)


def _latents(
    data: DataRecipe, seed: int, tokenizer: Any, world: World, keep: Sequence[str], ears: "Ears | None"
) -> Pair:
    from longtake.data.latent_cache import CachedLatents, cache_latents
    from longtake.tokenizers.vqgan3d import VQGAN3d

    if data.cut == "latents":
        return _cut(data, seed, tokenizer, world, keep if ears is None else (*keep, "sound"))
    discrete = isinstance(tokenizer, VQGAN3d)
    read = {"seed": seed, "dtype": torch.int64 if discrete else torch.float32}
    if data.view == "sound":
        raise BadRecipe("data.view: sound is for the task tokenizer; a GPT hears it with gpt.condition: audio.")
    if data.kind == "latents":
        if ears is not None:
            raise BadRecipe("data.kind: latents; sound is that of scenes, use kind scenes.")
        if data.root is None:
            raise BadRecipe("data.root: missing; the folder of a latent cache.")
        return _split(CachedLatents(data.root, tokenizer_hash=tokenizer.content_hash(), **read), data)
    if ears is not None:
        keep = (*keep, "sound")
    sets = _pixels(data, seed, world, keep)
    if ears is not None:
        sets = Heard(sets[0], ears), Heard(sets[1], ears)
    if data.cache is None:
        return sets
    rate = _rate_name(data)
    size = f"{data.frames}x{data.height}x{data.width}{rate}"
    heard = [] if ears is None else [f"{ears.frames}-by-{ears.tokenizer.content_hash()[:12]}"]
    name = "-".join(["latents", tokenizer.content_hash()[:12], size, *keep, *heard])
    folder = Path(data.cache) / name
    names = ("train", "held-out")
    if world.main:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in zip(names, sets, strict=True):
            source = f"{name}: {data.kind} {data.options}{rate}"  # a cache of other scenes is refused
            cache_latents(
                part,
                tokenizer,
                folder / name,
                dtype=torch.int32 if discrete else torch.float16,
                last_image=not discrete,
                device=world.device,
                source=source,
                keep=keep,
                workers=data.workers,
            )
    barrier(world)
    return CachedLatents(folder / names[0], **read), CachedLatents(folder / names[1], **read)


def _cut(data: DataRecipe, seed: int, tokenizer: Any, world: World, keep: Sequence[str]) -> Pair:
    """Windows of the cached ids of whole clips."""
    from longtake.tokenizers.vqgan3d import VQGAN3d

    if not isinstance(tokenizer, VQGAN3d) or data.kind != "scenes" or data.cache is None or set(keep) - {"label"}:
        raise BadRecipe(
            "data.cut: latents; only the ids that a VQGAN makes of rendered scenes, without their sound, and kept in "
            "data.cache, can be cut; use pixels."
        )
    whole = replace(data, frames=data.rendered_frames or data.frames, rendered_frames=None, cut="pixels")
    if whole.frames < data.frames:
        raise BadRecipe(f"data.rendered_frames: {whole.frames} frames hold no window of {data.frames}.")
    frames = tokenizer.latent_shape(data.frames, data.height, data.width)[0]
    train, held_out = (Windows(part, frames, seed) for part in _latents(whole, seed, tokenizer, world, keep, None))
    return train, held_out


def class_names(data: DataRecipe) -> tuple[str, ...]:
    """Names of the classes of the recipe's data, in the order of their numbers.

    Raises:
        BadRecipe: data without classes, or several data sets.
    """
    if data.mix:
        raise BadRecipe("data.mix: several data sets have no classes in common; train a model of classes on one.")
    if data.kind == "scenes":
        from longtake.data.scenes.classes import class_names

        return class_names(_scene_options(data))
    if data.kind == "videos" and data.root is not None:
        from longtake.data.layouts import list_sources
        from longtake.data.presets import FolderOptions, resolve

        check_arguments(FolderOptions, data.options, "data.options")
        preset = resolve(FolderOptions(**{"preset": data.preset or "ours", **data.options}))
        listed = list_sources(data.root, layout=preset.layout, split=preset.split).classes
        if listed:
            return listed
    raise BadRecipe(f"data: {data.root or data.kind} has no classes; set backbone.config.classes to 0.")


def _scene_options(data: DataRecipe) -> Any:
    from longtake.data.scenes import SceneOptions

    check_arguments(SceneOptions, data.options, "data.options")
    return SceneOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.options.items()})


def _rate_name(data: DataRecipe) -> str:
    """How caches of scenes name a rate that is not the usual one."""
    return f"-{data.fps:g}fps" if data.kind == "scenes" and data.fps is not None else ""


def sample_fps(item: dict[str, Any]) -> float:
    """Frames per second to write samples with."""
    return float(item.get("fps") or 8.0)


def _scenes(data: DataRecipe, seed: int, world: World, keep: Sequence[str] = ()) -> Pair:
    """Scenes 0 .. count-1 of the training split; the first ones of the held-out split, whose prompts it never shows."""
    from longtake.data.scenes import SceneDataset, prerender
    from longtake.data.scenes.world import FPS

    rendered = data.rendered_frames or data.frames
    if rendered < data.frames:
        raise BadRecipe(f"data.rendered_frames: {rendered} frames hold no window of {data.frames}.")
    size = {"frames": rendered, "height": data.height, "width": data.width, "fps": data.fps or FPS}
    chosen, alone = _scene_options(data), data.view == "sound"
    root = data.root
    if alone:
        root = None  # nothing of it is rendered
    elif root is None and data.cache is not None:
        root = str(Path(data.cache) / f"scenes-{rendered}x{data.height}x{data.width}{_rate_name(data)}")
        if world.main:
            Path(data.cache).mkdir(parents=True, exist_ok=True)
            prerender(root, data.count, chosen, **size, workers=data.workers, device=world.device.type)
        barrier(world)
    sound = "alone" if alone else "beside" if "sound" in keep else "none"
    also = {"semantics": "instances" in keep, "labels": "label" in keep, "sound": sound}
    train: Any = SceneDataset(root, options=chosen, count=data.count, **size, seed=seed, **also)
    others = SceneDataset(
        options=replace(chosen, split="held-out"),
        count=data.held_out,
        **size,
        plain=True,
        **also,
    )
    if rendered > data.frames:
        train, others = (Windows(part, data.frames, seed) for part in (train, others))
    held_out: Any = [others[index] for index in range(len(others))]  # rendered once, kept in memory
    return train, held_out


def _videos(data: DataRecipe, seed: int) -> Pair:
    """Clips of a folder or table; a few of them, spread evenly over it, are held out."""
    from longtake.data.folder import VideoFolder
    from longtake.data.presets import FolderOptions

    if data.root is None:
        raise BadRecipe("data.root: missing; the folder or table of videos to train on.")
    own = {
        "preset": data.preset or "ours",
        "frames": data.frames,
        "height": data.height,
        "width": data.width,
        "stride": data.stride,
        "fps": data.fps,
        "flip": data.flip,
        "window_seconds": data.window_seconds,
    }
    check_arguments(FolderOptions, data.options, "data.options")
    folder: Any = VideoFolder(data.root, FolderOptions(**{**own, **data.options}), seed=seed)
    return _split(Preloaded(folder, data.preload, data.workers) if data.preload else folder, data)


def _split(dataset: Any, data: DataRecipe) -> Pair:
    count = len(dataset)
    held = min(data.held_out, count // 4) or 1
    if count < 2:
        raise BadData(f"{data.root}: {count} clip is too few: one is held out, so at least 2 are needed.")
    out = {(2 * number + 1) * count // (2 * held) for number in range(held)}
    return Part(dataset, [i for i in range(count) if i not in out]), Part(dataset, sorted(out))


class FramesOfClasses(Dataset[dict[str, Any]]):
    """Scenes of one object and one frame, each with the number of its colour and shape among `names`."""

    def __init__(self, scenes: Any, names: Sequence[str]) -> None:
        self.scenes, self.numbers = scenes, {name: number for number, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        item = self.scenes[key]
        (thing,) = item["attributes"]["objects"]
        name = f"{thing['colour']} {thing['shape']}"
        return {"pixels": item["pixels"], "label": self.numbers[name], "prompt": name, "source": item["source"]}


@dataclass(frozen=True)
class Ears:
    """What hears the sound of a clip: a tokenizer of spectrograms, on the CPU, and how many of its frames it is given."""

    tokenizer: Any
    frames: int


class Heard(Dataset[dict[str, Any]]):
    """Clips whose spectrogram "sound" (1, T, 64, 16) becomes its ids: int64 (t, h, w)."""

    def __init__(self, dataset: Any, ears: Ears) -> None:
        self.dataset, self.ears = dataset, ears

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        item = self.dataset[key]
        ids = self.ears.tokenizer.encode(item["sound"][None, :, : self.ears.frames])[0]
        return {**item, "sound": ids}


TIME_AXES = {"pixels": 1, "latents": 0, "instances": 0, "sound": 1}
"""Where time is in an item's tensors; "latents" are ids (t, h, w), the only ones that are cut."""


class Windows(Dataset[dict[str, Any]]):
    """Random stretches of ``frames`` frames of longer clips; which one is a pure function of (seed, epoch, index).

    Of cached ids they are stretches of latent frames, which equal the ids of the stretch's own pixels as far as the
    tokenizer does not know where in a clip a frame lies.
    """

    def __init__(self, dataset: Any, frames: int, seed: int) -> None:
        self.dataset, self.frames, self.seed = dataset, frames, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        item = self.dataset[key]
        axes = {name: axis for name, axis in TIME_AXES.items() if name in item}
        first = next(iter(axes))
        starts = item[first].shape[axes[first]] - self.frames + 1
        start = mix_seed(self.seed, 4, *split_key(key, len(self))) % starts
        return {**item, **{name: item[name].narrow(axis, start, self.frames) for name, axis in axes.items()}}


class Preloaded(Dataset[dict[str, Any]]):
    """The first few epochs of a small data set, decoded once and kept in memory as bytes; later epochs repeat them."""

    def __init__(self, dataset: Any, epochs: int, workers: int) -> None:
        self.count = len(dataset)
        keys = [(epoch, index) for epoch in range(epochs) for index in range(self.count)]
        loader = DataLoader(dataset, batch_size=None, sampler=keys, num_workers=workers)
        self.items: list[dict[str, Any]] = []
        for item in track(loader, f"Decoding {len(keys)} clips"):
            self.items.append({**item, "pixels": to_uint8(item["pixels"])})

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = split_key(key, self.count)
        item = self.items[(epoch * self.count + index) % len(self.items)]
        return {**item, "pixels": from_uint8(item["pixels"])}
