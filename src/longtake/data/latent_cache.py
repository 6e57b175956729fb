"""Latents of a data set, encoded once and kept as safetensors shards.

A cache is a folder::

    index.json               format, tokenizer hash, sizes, fps, counts, the list of shards
    shard-00000.safetensors  latents (n, C, T', H', W'), last_image_latents (n, C, 1, H', W'); prompts, sources in the
    shard-00001.safetensors  file's metadata; and what else of the items was to be kept, as it is

Ids of a discrete tokenizer are stored likewise, as int32 and without those of a last image.

A shard is written under a temporary name and renamed, then the index likewise, so an interrupted run leaves whole
shards and an index that lists them; the next run goes on behind them. One cache holds one size; mix sizes with
``torch.utils.data.ConcatDataset``.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader

from longtake.data.order import draw_prompt, split_key
from longtake.errors import BadData, BadOutput
from longtake.video import write_bytes

FORMAT = "longtake.latents/1"
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int32": torch.int32,
}


class LatentTokenizer(Protocol):
    """What a cache needs of a tokenizer: normalised latents and a hash of its weights and statistics."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, T, H, W) in [-1, 1] to normalised latents (B, C, T', H', W')."""
        ...

    def content_hash(self) -> str:
        """Return a string that changes with the weights or the statistics."""
        ...


@dataclass(frozen=True)
class CacheIndex:
    """The content of ``index.json``.

    Attributes:
        tokenizer: content hash of the tokenizer that encoded the latents.
        source: the caller's words for the data (a folder, a scene seed); a resumed run must give the same.
        dtype: "float16", "bfloat16", "float32", or "int32" for ids.
        pixel_shape: (3, T, H, W) of the clips. latent_shape: (C, T', H', W').
        fps: frames per second of the first clip.
        total: clips in the data set. shards: (file name, clips) of each finished shard.
        kept: names of further tensors of the items that are stored as they are.
        last_image: whether the last frame of each clip is stored as a single image too.
    """

    tokenizer: str
    source: str
    dtype: str
    pixel_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    fps: float
    total: int
    shards: tuple[tuple[str, int], ...]
    kept: tuple[str, ...] = ()
    last_image: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors of an item."""
        return ("latents", *(["last_image_latents"] if self.last_image else []), *self.kept)

    @property
    def count(self) -> int:
        """Clips in the finished shards; equal to `total` once the cache is complete."""
        return sum(count for _, count in self.shards)


def cache_latents(
    dataset: Any,
    tokenizer: LatentTokenizer,
    out: str | Path,
    *,
    batch: int = 16,
    dtype: torch.dtype = torch.float16,
    shard_size: int = 512,
    workers: int = 0,
    device: str | torch.device = "cpu",
    source: str = "",
    keep: Sequence[str] = (),
    last_image: bool = True,
    progress: bool = True,
) -> CacheIndex:
    """Encode every clip of a data set, and its last frame as a single image, into a cache; go on if one is begun.

    Args:
        dataset: map-style, items {"pixels": (3, T, H, W) in [-1, 1], "prompt": str} all of one size, and if there
            "fps" and "source". Paraphrases, the plain prompt first, are kept too: an item's "prompts", or what the
            data set's method ``prompts(index)`` gives.
        tokenizer: encodes (B, 3, T, H, W), and (B, 3, 1, H, W) for the last frame, into normalised latents or ids.
        out: folder of the cache, made if missing (its parent must exist).
        batch: clips encoded at a time. shard_size: clips per file, the most that an interruption loses.
        dtype: float16, bfloat16 or float32, of what is stored; int32 for ids.
        workers: DataLoader processes that prepare pixels.
        device: where the tokenizer lives.
        source: words that tell this data apart from other data; compared on resume.
        keep: names of further tensors or numbers of an item, equal in shape for all clips, that are stored as they are.
        last_image: encode the last frame by itself; False for a tokenizer that takes no single image.

    Returns:
        The index of the complete cache.

    Raises:
        BadData: empty data, clips of different sizes, latents that are not finite in `dtype`, or a cache of other
            data, another tokenizer, dtype or choice of tensors already in `out`.
        BadOutput: the folder cannot be made or the disk is full.
    """
    out = Path(out)
    if len(dataset) == 0:
        raise BadData(f"Nothing to encode into {out}: the data set is empty.")
    name = next((name for name, known in DTYPES.items() if known == dtype), None)
    if name is None:
        raise BadData(f"Cannot store latents as {dtype}: expected one of {', '.join(DTYPES)}.")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise BadOutput(f"Cannot make the cache folder {out}: {error.strerror}.") from None
    wanted = CacheIndex(tokenizer.content_hash(), source, name, (), (), 0.0, len(dataset), (), tuple(keep), last_image)
    index = _index_to_resume(out, wanted)
    if index.count == index.total:
        return index

    loader = DataLoader(
        dataset, batch_size=batch, sampler=range(index.count, len(dataset)), num_workers=workers, collate_fn=list
    )
    rows: list[dict[str, Any]] = []
    for items in track(loader, "Encoding", disable=not progress):
        index = _with_shapes(index, items)
        pixels = torch.stack([item["pixels"] for item in items]).to(device)
        with torch.inference_mode():
            made = {"latents": tokenizer.encode(pixels).to("cpu", dtype)}
            if last_image:
                made["last_image_latents"] = tokenizer.encode(pixels[:, :, -1:]).to("cpu", dtype)
        if not all(values.isfinite().all() for values in made.values()):
            raise BadData(f"Latents near clip {index.count + len(rows)} are not finite as {name}: use float32.")
        index = replace(index, latent_shape=tuple(made["latents"].shape[1:]))
        rows += [
            {
                **{name: values[i] for name, values in made.items()},
                "prompts": _prompts(dataset, item, index.count + len(rows) + i),
                "source": str(item.get("source", "")),
                **{key: torch.as_tensor(item[key]) for key in keep},
            }
            for i, item in enumerate(items)
        ]
        while len(rows) >= shard_size:
            index = _write_shard(out, index, rows[:shard_size])
            rows = rows[shard_size:]
    if rows:
        index = _write_shard(out, index, rows)
    return index


def read_index(root: str | Path) -> CacheIndex:
    """Read the index of a cache.

    Raises:
        BadData: no cache is there, or its index is not one that this version reads.
    """
    path = Path(root) / "index.json"
    try:
        fields = json.loads(path.read_text())
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        for key in ("pixel_shape", "latent_shape", "kept"):
            fields[key] = tuple(fields.get(key, ()))
        fields["shards"] = tuple((file, count) for file, count in fields["shards"])
        return CacheIndex(**fields)
    except FileNotFoundError:
        raise BadData(f"No latent cache in {root}: index.json is missing.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is not a {FORMAT} index ({error}): delete the folder and encode again.") from None


class CachedLatents(torch.utils.data.Dataset[dict[str, Any]]):
    """The clips of a cache, map-style.

    An item is {"latents": (C, T', H', W'), "last_image_latents": (C, 1, H', W') if stored, "prompt": str, "fps": float,
    "source": str}, and the tensors that the cache kept. A key is an index, which gives the first prompt, or an
    (epoch, index) pair, which draws one of the clip's paraphrases (`longtake.data.order.draw_prompt`).

    Args:
        root: the folder that `cache_latents` wrote.
        tokenizer_hash: ``content_hash()`` of the tokenizer in use; None checks nothing.
        dtype: of the returned tensors.
        in_memory: hold all latents in memory, or read each from its file; None holds up to 2 GiB.
        partial: accept a cache whose encoding was interrupted.
        seed: for the choice of paraphrases.

    Raises:
        BadData: no cache, an unfinished one, or one that another tokenizer encoded.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        tokenizer_hash: str | None = None,
        dtype: torch.dtype = torch.float32,
        in_memory: bool | None = None,
        partial: bool = False,
        seed: int = 0,
    ) -> None:
        self.root, self.dtype, self.seed = Path(root), dtype, seed
        self.index = read_index(root)
        if tokenizer_hash is not None and tokenizer_hash != self.index.tokenizer:
            raise BadData(
                f"The latents in {root} were encoded by tokenizer {self.index.tokenizer[:12]}, not by "
                f"{tokenizer_hash[:12]}: encode them again, or load the tokenizer that they belong to."
            )
        if self.index.count < self.index.total and not partial:
            raise BadData(
                f"The latents in {root} are unfinished ({self.index.count} of {self.index.total} clips): "
                "run the same encoding again, it goes on where it stopped."
            )
        if self.index.count == 0:
            raise BadData(f"The latents in {root} are empty: run the same encoding again.")
        self._ends = list(accumulate(count for _, count in self.index.shards))
        self._names = self.index.names
        self._files: dict[int, Any] = {}
        self._prompts: list[list[str]] = []
        self._sources: list[str] = []
        for shard in range(len(self._ends)):
            metadata = self._open(shard).metadata()
            self._prompts += json.loads(metadata["prompts"])
            self._sources += json.loads(metadata["sources"])
        if in_memory is None:
            values = self.index.count * torch.Size(self.index.latent_shape).numel()
            in_memory = values * DTYPES[self.index.dtype].itemsize <= 2 * 2**30
        self._held: dict[str, Tensor] = {}
        if in_memory:
            for name in self._names:
                self._held[name] = torch.cat([self._open(i).get_tensor(name) for i in range(len(self._ends))])
            self._files.clear()

    def __len__(self) -> int:
        return self.index.count

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, Any]]:
        """Return the items of a batch; a DataLoader calls this once per batch."""
        places = [split_key(key, len(self)) for key in keys]
        indices = [index for _, index in places]
        tensors = {name: self._gather(name, indices) for name in self._names}
        return [
            {
                **{name: values[i] for name, values in tensors.items()},
                "prompt": draw_prompt(self._prompts[index], self.seed, epoch, index)
                if isinstance(keys[i], tuple)
                else self._prompts[index][0],
                "fps": self.index.fps,
                "source": self._sources[index],
            }
            for i, (epoch, index) in enumerate(places)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # open files do not travel to worker processes

    def prompts(self, index: int) -> list[str]:
        """Return all paraphrases of a clip; the first is its prompt."""
        return self._prompts[index]

    def _gather(self, name: str, indices: list[int]) -> Tensor:
        if name in self._held:
            return self._typed(name, self._held[name][indices])
        rows = []
        for index in indices:
            shard = bisect_right(self._ends, index)
            row = index - (self._ends[shard - 1] if shard else 0)
            rows.append(self._open(shard).get_slice(name)[row : row + 1])
        return self._typed(name, torch.cat(rows))

    def _typed(self, name: str, values: Tensor) -> Tensor:
        return values if name in self.index.kept else values.to(self.dtype)

    def _open(self, shard: int) -> Any:
        if shard not in self._files:
            path = self.root / self.index.shards[shard][0]
            try:
                self._files[shard] = safe_open(path, framework="pt")
            except Exception as error:  # safetensors raises its own type for a damaged file, OSError for a missing one
                raise BadData(f"Cannot read {path} ({error}): delete the cache and encode again.") from None
        return self._files[shard]


def _index_to_resume(out: Path, wanted: CacheIndex) -> CacheIndex:
    """Return the index to go on from: `wanted` itself, or one in `out` that agrees with it."""
    if not (out / "index.json").exists():
        return wanted
    begun = read_index(out)
    for field, what in (
        ("tokenizer", "tokenizer"),
        ("source", "data"),
        ("dtype", "dtype"),
        ("total", "clip count"),
        ("names", "choice of tensors"),
    ):
        old, new = getattr(begun, field), getattr(wanted, field)
        if old != new:
            raise BadData(f"{out} holds latents of another {what} ({old}, not {new}): choose another folder.")
    return begun


def _prompts(dataset: Any, item: dict[str, Any], index: int) -> list[str]:
    if item.get("prompts"):
        return list(item["prompts"])
    listed = dataset.prompts(index) if hasattr(dataset, "prompts") else []
    return list(listed) or [item["prompt"]]


def _with_shapes(index: CacheIndex, items: list[dict[str, Any]]) -> CacheIndex:
    """Check that all clips have one size; take it, and the fps, from the first."""
    for item in items:
        shape = tuple(item["pixels"].shape)
        if not index.pixel_shape:
            index = replace(index, pixel_shape=shape, fps=float(item.get("fps", 0.0)))
        elif shape != index.pixel_shape:
            raise BadData(
                f"A clip of shape {shape} among clips of {index.pixel_shape} ({item.get('source', 'no source')}): "
                "one cache holds one size, encode each size into its own folder."
            )
    return index


def _write_shard(out: Path, index: CacheIndex, rows: list[dict[str, Any]]) -> CacheIndex:
    file = f"shard-{len(index.shards):05d}.safetensors"
    tensors = {name: torch.stack([row[name] for row in rows]) for name in index.names}
    metadata = {
        "prompts": json.dumps([row["prompts"] for row in rows]),
        "sources": json.dumps([row["source"] for row in rows]),
    }
    index = replace(index, shards=(*index.shards, (file, len(rows))))
    write_bytes(out / file, save(tensors, metadata))
    write_bytes(out / "index.json", json.dumps({"format": FORMAT, **asdict(index)}, indent=1).encode())
    return index
