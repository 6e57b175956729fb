"""Streaming: each clip of a side is decoded once, shown to every observer, and forgotten; what they saw is kept.

An observer turns clips into rows of numbers: features of a network, or a metric of each clip. Rows are kept in shards
of 64 clips, each a file under a key made of what the clips show, how they were prepared and who looked: a run that was
killed goes on with the next shard, and a folder whose content changed under its name is looked at again.

Clips stand in an order that their content decides (`longtake.evaluation.cuts`), and batches never reach over shards.
Processes take shards in turns and tell one another what they saw, so all of them end with all rows.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtake.errors import BadData, BadInput, BadOutput, BadVideo
from longtake.evaluation.cuts import Cut, Cuts
from longtake.evaluation.preparation import prepare
from longtake.evaluation.protocol import digest
from longtake.evaluation.sources import Video
from longtake.video import write_bytes

SHARD = 64
"""Clips of a shard: the most that a kill loses."""


@dataclass(frozen=True)
class Seen:
    """A batch as observers get it: clips uint8 (B, 3, T, H, W), the videos they come from, and the real clips that they
    are paired with, where an observer asked for them."""

    pixels: Tensor
    videos: tuple[Video, ...]
    partners: Tensor | None = None


@dataclass(frozen=True)
class Observer:
    """Something that looks at clips.

    Attributes:
        name: unique among those of a run. hash: of everything that its numbers depend on besides the clips.
        look: a batch -> rows (B, R, D), R rows of D numbers for each clip, on the CPU.
        paired: whether it looks at the real partner of each clip too.
    """

    name: str
    hash: str
    look: Callable[[Seen], Tensor]
    paired: bool = False


@dataclass
class Observations:
    """What was seen of one side.

    Attributes:
        clips: those that could be decoded, in their order. rows: (N, R, D) of each observer, by name.
        problems: (name, reason) of clips that could not.
        decoded: clips that were decoded now and not taken from the cache.
        decode_seconds, look_seconds: spent on them in this process (decoding: over all its workers).
    """

    clips: tuple[Cut, ...]
    rows: dict[str, Tensor]
    problems: tuple[tuple[str, str], ...]
    decoded: int = 0
    decode_seconds: float = 0.0
    look_seconds: float = 0.0


@dataclass
class _Shard:
    """Rows of the clips that could be decoded, which ones those were, and why the others could not."""

    rows: Tensor
    good: Tensor
    problems: list[list[str]] = field(default_factory=list)


def observe(
    cuts: Cuts,
    observers: Sequence[Observer],
    *,
    cache: Path | None = None,
    partners: tuple[Cuts, Sequence[int]] | None = None,
    batch: int = 8,
    workers: int = 0,
    on_clips: Callable[[int, int], None] | None = None,
) -> Observations:
    """Show all clips of a side to all observers.

    Args:
        cuts: the clips. observers: who looks.
        cache: folder of shards; None keeps nothing.
        partners: the real side, and for each clip the number of its partner there; for paired observers.
        batch: clips at a time, no more than a shard. workers: processes that decode; 0 decodes here.
        on_clips: called with (done, total) clips of this process.

    Raises:
        BadInput: a batch or number of workers out of range. BadData: no clip can be decoded, or clips differ in size.
        BadOutput: the cache cannot be written.
    """
    if batch < 1 or workers < 0:
        raise BadInput(f"batch is {batch} and workers {workers}; expected 1 or more clips, and 0 or more workers.")
    rank, size = process_place()
    starts = range(0, len(cuts.clips), SHARD)
    folders = {o.name: None if cache is None else cache / f"{o.name}-{_key(cuts, o, partners)[:16]}" for o in observers}
    mine = [start for number, start in enumerate(starts) if number % size == rank]
    shards = {(o.name, start): _load(folders[o.name], start, cuts) for o in observers for start in mine}
    out = Observations((), {}, ())
    todo = {start: [o for o in observers if shards[o.name, start] is None] for start in mine}
    todo = {start: missing for start, missing in todo.items() if missing}
    for start, found in _look(cuts, todo, partners, batch, workers, out, on_clips):
        for name, shard in found.items():
            shards[name, start] = shard
            if (folder := folders[name]) is not None:
                _save(folder, start, shard)
    complete = {
        key: _share(shards.get(key), number % size, rank) if size > 1 else shards[key]
        for o in observers
        for number, start in enumerate(starts)
        for key in [(o.name, start)]
    }
    return _together(cuts, observers, starts, complete, out)


def _look(
    cuts: Cuts,
    todo: dict[int, list[Observer]],
    partners: tuple[Cuts, Sequence[int]] | None,
    batch: int,
    workers: int,
    out: Observations,
    on_clips: Callable[[int, int], None] | None,
):
    """Decode the clips of shards and yield (start, {observer: shard}) as each shard is done."""
    paired = any(o.paired for missing in todo.values() for o in missing)
    batches = []
    for start in todo:
        numbers = list(range(start, min(start + SHARD, len(cuts.clips))))
        batches += [numbers[i : i + batch] for i in range(0, len(numbers), batch)]
    reader = _Reader(cuts, partners if paired else None)
    loader = DataLoader(reader, batch_sampler=batches, num_workers=workers, collate_fn=list)
    total = sum(map(len, batches))
    pieces: dict[str, list[Tensor]] = {}
    good: list[bool] = []
    problems: list[list[str]] = []
    for numbers, items in zip(batches, loader, strict=True):
        fine = [(number, item) for number, item in zip(numbers, items, strict=True) if not isinstance(item, str)]
        bad = [(number, item) for number, item in zip(numbers, items, strict=True) if isinstance(item, str)]
        problems += [[cuts.name(number), reason] for number, reason in bad]
        good += [not isinstance(item, str) for item in items]
        out.decode_seconds += sum(item[2] for _, item in fine)
        out.decoded += len(fine)
        start = numbers[0] - numbers[0] % SHARD
        begun = time.perf_counter()
        if fine:
            seen = Seen(
                _stack([item[0] for _, item in fine], cuts, [number for number, _ in fine]),
                tuple(cuts.source.videos[cuts.clips[number].video] for number, _ in fine),
                torch.stack([item[1] for _, item in fine]) if paired else None,
            )
            for observer in todo[start]:
                pieces.setdefault(observer.name, []).append(_rows(observer, seen))
        out.look_seconds += time.perf_counter() - begun
        if on_clips is not None:
            on_clips(out.decoded + len(problems), total)
        if numbers[-1] + 1 == min(start + SHARD, len(cuts.clips)):
            none = torch.empty(0, 0, 0)
            yield (
                start,
                {
                    o.name: _Shard(
                        torch.cat(pieces[o.name]) if o.name in pieces else none, torch.tensor(good), problems
                    )
                    for o in todo[start]
                },
            )
            pieces, good, problems = {}, [], []


class _Reader(Dataset):
    """Clip number -> (prepared clip, its partner or None, seconds), or the reason why it cannot be decoded."""

    def __init__(self, cuts: Cuts, partners: tuple[Cuts, Sequence[int]] | None) -> None:
        self.cuts, self.partners = cuts, partners

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor | None, float] | str:
        begun = time.perf_counter()
        try:
            clip = read_clip(self.cuts, number)
            partner = None
            if self.partners is not None:
                real, place = self.partners
                partner = read_clip(real, place[number])
            return clip, partner, time.perf_counter() - begun
        except BadVideo as error:
            return str(error)


def read_clip(cuts: Cuts, number: int) -> Tensor:
    """Decode and prepare one clip: uint8 (3, T, H, W). Raises BadVideo."""
    cut = cuts.clips[number]
    video = cuts.source.videos[cut.video]
    frames = cuts.source.read(cut.video, cut.frames)
    return prepare(frames, cuts.side, mirrored=cut.mirrored, mp4=video.mp4, jpeg=video.jpeg)


def _rows(observer: Observer, seen: Seen) -> Tensor:
    rows = observer.look(seen)
    if rows.ndim != 3 or len(rows) != len(seen.pixels):
        raise BadInput(
            f"{observer.name} returned {tuple(rows.shape)} for {len(seen.pixels)} clips; expected (B, R, D)."
        )
    return rows.detach().cpu()


def _stack(clips: list[Tensor], cuts: Cuts, numbers: list[int]) -> Tensor:
    height, width = clips[0].shape[-2:]
    for clip, number in zip(clips, numbers, strict=True):
        if clip.shape != clips[0].shape:
            raise BadData(
                f"{cuts.name(number)} is {clip.shape[-1]}x{clip.shape[-2]} and {cuts.name(numbers[0])} {width}x{height}: "
                f"bring them to one size, for example --set size={min(height, width)}."
            )
    return torch.stack(clips)


def _together(
    cuts: Cuts,
    observers: Sequence[Observer],
    starts: range,
    shards: dict[tuple[str, int], _Shard | None],
    out: Observations,
) -> Observations:
    """All rows of all shards; a clip counts when every observer saw it."""
    if not observers:
        return out
    everyone = [[shards[o.name, start] for start in starts] for o in observers]
    good = torch.stack([torch.cat([shard.good for shard in row if shard is not None]) for row in everyone])
    kept = good.all(0)
    problems: dict[str, str] = {}
    for row in everyone:
        problems |= {name: reason for shard in row if shard is not None for name, reason in shard.problems}
    if not kept.any():
        name, reason = next(iter(problems.items()))
        raise BadData(f"none of the {len(kept)} clips of {cuts.source.name} can be decoded ({name}: {reason}).")
    for observer, row, own in zip(observers, everyone, good, strict=True):
        rows = torch.cat([shard.rows for shard in row if shard is not None and shard.good.any()])
        out.rows[observer.name] = rows[kept[own]]
    out.clips = tuple(clip for clip, keep in zip(cuts.clips, kept.tolist(), strict=True) if keep)
    out.problems = tuple(problems.items())
    return out


# --------------------------------------------------------------------------------------------------------------- cache


def _key(cuts: Cuts, observer: Observer, partners: tuple[Cuts, Sequence[int]] | None) -> str:
    told = [cuts.index_hash, asdict(cuts.side), observer.hash, SHARD]
    if observer.paired and partners is not None:
        real, places = partners
        told += [real.index_hash, asdict(real.side), list(places)]
    return digest(told)


def _save(folder: Path, start: int, shard: _Shard) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"cannot make the folder {folder}: {error.strerror}.") from None
    told = {"problems": json.dumps(shard.problems)}
    data = save({"rows": shard.rows.contiguous(), "good": shard.good.to(torch.uint8)}, told)
    write_bytes(folder / f"{start:06d}.safetensors", data)


def _load(folder: Path | None, start: int, cuts: Cuts) -> _Shard | None:
    """A shard that is there, whole and of as many clips; else None."""
    if folder is None or not (path := folder / f"{start:06d}.safetensors").is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            good = file.get_tensor("good").bool()
            shard = _Shard(file.get_tensor("rows"), good, json.loads(file.metadata()["problems"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return shard if len(good) == min(SHARD, len(cuts.clips) - start) and len(shard.rows) == good.sum() else None


# ----------------------------------------------------------------------------------------------------------- processes


@contextmanager
def joined_processes() -> Iterator[int]:
    """Join the processes that torchrun started, if it did and nobody has; gives this one's number."""
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("gloo")
        try:
            yield dist.get_rank()
        finally:
            dist.destroy_process_group()
    else:
        yield process_place()[0]


def process_place() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _share(shard: _Shard | None, owner: int, rank: int) -> _Shard:
    """Hand a shard from the process that has it to all others."""
    words = json.dumps(shard.problems).encode() if shard is not None else b""
    kinds = (torch.float32, torch.float64)
    told = torch.zeros(6, dtype=torch.long)
    if shard is not None:
        shape = [*shard.rows.shape]
        told = torch.tensor([*shape, kinds.index(shard.rows.dtype), len(shard.good), len(words)])
    dist.broadcast(told, owner)
    *shape, kind, count, length = told.tolist()
    rows = shard.rows.contiguous() if shard is not None else torch.empty(shape, dtype=kinds[kind])
    good = shard.good.to(torch.uint8) if shard is not None else torch.empty(count, dtype=torch.uint8)
    text = torch.frombuffer(bytearray(words), dtype=torch.uint8) if words else torch.empty(length, dtype=torch.uint8)
    for tensor in (rows, good, text):
        if tensor.numel():
            dist.broadcast(tensor, owner)
    return _Shard(rows, good.bool(), json.loads(bytes(text.tolist())) if length else [])
