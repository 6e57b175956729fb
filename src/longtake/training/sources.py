"""The data of a recipe: training set and held-out set, as pixels for a tokenizer or as latents for a generator."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from longtake.data.order import Part
from longtake.errors import BadData, BadRecipe
from longtake.training.parallel import World, barrier
from longtake.training.recipe import DataRecipe, check_arguments

Sets = tuple[Dataset[Any], Dataset[Any]]


def pixel_data(data: DataRecipe, seed: int, world: World) -> Sets:
    """Clips {"pixels": (3, T, H, W) in [-1, 1], "prompt": str, "fps": float}.

    Raises:
        BadData: nothing to train on, or nothing held out of it.
    """
    if data.kind == "latents":
        raise BadRecipe("data.kind: a tokenizer is trained on pixels; use scenes or videos.")
    if data.kind == "videos":
        return _videos(data, seed)
    return _scenes(data, seed, world)


def latent_data(data: DataRecipe, seed: int, tokenizer: Any, world: World) -> Sets:
    """Latents from a cache, or pixels that the task encodes as it goes when the recipe names no cache."""
    from longtake.data.latent_cache import CachedLatents, cache_latents

    if data.kind == "latents":
        if data.root is None:
            raise BadRecipe("data.root: missing; the folder of a latent cache.")
        cached = CachedLatents(data.root, tokenizer_hash=tokenizer.content_hash(), seed=seed)
        return _split(cached, data)
    sets = pixel_data(data, seed, world)
    if data.cache is None:
        return sets
    folder = Path(data.cache) / f"latents-{tokenizer.content_hash()[:12]}-{data.frames}x{data.height}x{data.width}"
    names = ("train", "held-out")
    if world.main:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in zip(names, sets, strict=True):
            cache_latents(part, tokenizer, folder / name, device=world.device, source=name, workers=data.workers)
    barrier(world)
    train, held_out = (CachedLatents(folder / name, seed=seed) for name in names)
    return train, held_out


def sample_fps(item: dict[str, Any]) -> float:
    """Frames per second to write samples with."""
    return float(item.get("fps") or 8.0)


def _scenes(data: DataRecipe, seed: int, world: World) -> Sets:
    """Scenes 0 .. count-1 of the training split; the first ones of the held-out split, whose prompts it never shows."""
    from longtake.data.scenes import SceneDataset, SceneOptions, prerender

    check_arguments(SceneOptions, data.options, "data.options")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in data.options.items()}
    size = {"frames": data.frames, "height": data.height, "width": data.width}
    chosen = SceneOptions(**options)
    root = data.root
    if root is None and data.cache is not None:
        root = str(Path(data.cache) / f"scenes-{data.frames}x{data.height}x{data.width}")
        if world.main:
            Path(data.cache).mkdir(parents=True, exist_ok=True)
            prerender(root, data.count, chosen, **size, workers=data.workers)
        barrier(world)
    train = SceneDataset(root, options=chosen, count=data.count, **size, seed=seed)
    others = SceneDataset(
        options=SceneOptions(**{**options, "split": "held-out"}), count=data.held_out, **size, plain=True
    )
    held_out: Any = [others[index] for index in range(len(others))]  # rendered once, kept in memory
    return train, held_out


def _videos(data: DataRecipe, seed: int) -> Sets:
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
    folder = VideoFolder(data.root, FolderOptions(**{**own, **data.options}), seed=seed)
    return _split(folder, data)


def _split(dataset: Any, data: DataRecipe) -> Sets:
    count = len(dataset)
    held = min(data.held_out, count // 4) or 1
    if count < 2:
        raise BadData(f"{data.root}: {count} clip is too few: one is held out, so at least 2 are needed.")
    out = {(2 * number + 1) * count // (2 * held) for number in range(held)}
    return Part(dataset, [i for i in range(count) if i not in out]), Part(dataset, sorted(out))
