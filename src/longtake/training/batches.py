"""Batches for training and validation, the same on any number of processes and after any interruption."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from longtake.data.order import ResumableOrder, mix_seed
from longtake.errors import BadData, BadRecipe, LongtakeError
from longtake.training.parallel import World
from longtake.training.recipe import DataRecipe
from longtake.training.tasks import Batch

_SAMPLE, _HELD_OUT, _CHOICE = 1, 2, 5  # independent uses of the recipe's seed


class Stream:
    """Endless micro-batches of this process, with a seed for each sample.

    Which data set a step draws from is a function of (seed, step), which items it gets one of (seed, clips drawn so far
    from that set), and so is each sample's seed.

    Args:
        sets: map-style data sets that take (epoch, index) pairs; all items of one set have one size.
        shares: how often each is drawn from, relative to the others.
        data: batch size, micro-batches and workers.
        seed: of the recipe.
        step: completed steps.
        positions: clips that all processes together have drawn from each set (None: none yet).

    Raises:
        BadRecipe: the batch does not divide among processes and micro-batches. BadData: a set is empty.
    """

    def __init__(
        self,
        sets: Sequence[Any],
        shares: Sequence[float],
        data: DataRecipe,
        seed: int,
        world: World,
        step: int = 0,
        positions: Sequence[int] | None = None,
    ) -> None:
        if data.batch_size % (world.size * data.accumulate):
            raise BadRecipe(
                f"data.batch_size: {data.batch_size} clips do not divide among {world.size} processes x "
                f"{data.accumulate} micro-batches; use a multiple of {world.size * data.accumulate}."
            )
        for part in sets:
            if not len(part):
                raise BadData("the data set is empty: there is nothing to train on.")
        self.sets, self.data, self.seed, self.world, self.step = list(sets), data, seed, world, step
        self.positions = list(positions) if positions is not None else [0] * len(sets)
        total, self._bounds = sum(shares), []
        for share in shares:
            self._bounds.append(share / total + (self._bounds[-1] if self._bounds else 0.0))

    def __len__(self) -> int:
        return sum(len(part) for part in self.sets)

    def __iter__(self) -> Iterator[tuple[list[Batch], list[list[int]]]]:
        """Yield (micro-batches, their samples' seeds) of one step after another."""
        mine = self.data.batch_size // self.world.size
        small = mine // self.data.accumulate
        loaders = [self._loader(which, mine) for which in range(len(self.sets))]
        while True:
            which = self._choice()
            items = _take(loaders[which])
            first = self.positions[which] + self.world.rank * mine
            salt = (which,) if which else ()
            seeds = [mix_seed(self.seed, _SAMPLE, first + i, *salt) for i in range(mine)]
            cuts = range(0, mine, small)
            self.step += 1
            self.positions[which] += self.data.batch_size
            device = self.world.device
            yield [collate(items[i : i + small], device) for i in cuts], [seeds[i : i + small] for i in cuts]

    def _choice(self) -> int:
        if len(self.sets) == 1:
            return 0
        u = mix_seed(self.seed, _CHOICE, self.step) / 2**63
        return next((i for i, bound in enumerate(self._bounds) if u < bound), len(self.sets) - 1)

    def _loader(self, which: int, mine: int) -> Iterator[list[dict[str, Any]]]:
        size, world = len(self.sets[which]), self.world
        order = ResumableOrder(size, mine, seed=self.seed, rank=world.rank, world=world.size, with_epoch=True)
        order.load_state_dict({"seed": self.seed, "size": size, "step": 0, "position": self.positions[which]})
        return iter(
            DataLoader(
                self.sets[which],
                batch_sampler=order,
                num_workers=self.data.workers,
                collate_fn=list,
                pin_memory=world.device.type == "cuda",
                prefetch_factor=4 if self.data.workers else None,
                worker_init_fn=_ignore_interrupt,
                generator=torch.Generator().manual_seed(self.seed),  # keeps off the global random state
            )
        )


def _take(loader: Iterator[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The next items; an error of ours in a worker process comes as the one line that it was raised with."""
    try:
        return next(loader)
    except LongtakeError as error:
        text = str(error).strip()
        if not text.startswith("Caught "):
            raise
        raise type(error)(text.splitlines()[-1].partition(": ")[2]) from None


def _ignore_interrupt(_: int) -> None:
    """Ctrl-C reaches worker processes too; the training process decides when they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def held_out_batches(dataset: Any, batch_size: int, seed: int, world: World) -> Iterator[tuple[Batch, list[int]]]:
    """Yield this process's share of the held-out clips with their seeds; all processes get equally many."""
    count = len(dataset)
    each, first = (count // world.size, world.rank * (count // world.size)) if count >= world.size else (count, 0)
    small = max(1, batch_size // world.size)
    for start in range(first, first + each, small):
        indices = range(start, min(start + small, first + each))
        yield collate([dataset[i] for i in indices], world.device), [mix_seed(seed, _HELD_OUT, i) for i in indices]


def collate(items: Sequence[dict[str, Any]], device: torch.device) -> Batch:
    """Items of one size -> a batch: tensors stacked (B, ...) on the device, everything else in lists."""
    batch: Batch = {}
    for key, value in items[0].items():
        values = [item[key] for item in items]
        batch[key] = torch.stack(values).to(device, non_blocking=True) if isinstance(value, Tensor) else values
    return batch
