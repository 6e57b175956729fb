"""The order in which training sees its data: a pure function of (seed, step, rank, world), so a resumed run repeats it.

The items form one endless stream: a shuffle of the whole set, then another, and so on. Step ``s`` takes the next
``batch * world`` items of the stream, across the end of an epoch if need be, and rank ``r`` the ``r``-th slice of
them. So two processes with a batch of 4 see together exactly what one process with a batch of 8 sees.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from longtake.errors import BadData, BadInput


def mix_seed(*parts: int) -> int:
    """Hash integers (seed, epoch, index, ...) into one seed in [0, 2**63); the same on every machine and run."""
    packed = struct.pack(f"<{len(parts)}q", *parts)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def epoch_permutation(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the shuffle of ``range(size)`` that belongs to an epoch: int64 (size,)."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))


class ResumableOrder(Sampler[list[Any]]):
    """An endless batch sampler for ``DataLoader(batch_sampler=...)`` that starts at any step.

    Args:
        size: number of items in the data set, at least 1.
        batch: items per process and step.
        seed: same seed, same order.
        rank, world: this process among all (0 <= rank < world).
        step: the first step to hand out.
        shuffle: False walks through the set in its own order, again and again.
        with_epoch: yield ``(epoch, index)`` pairs in place of indices. `VideoFolder` and `CachedLatents` take such
            pairs and draw another window, flip or paraphrase in every epoch; with plain indices they repeat epoch 0.

    A DataLoader with workers asks for batches ahead of the training loop. The loop's own step is therefore what to
    store: ``state_dict(step)``.

    Raises:
        BadData: size is 0. BadInput: any other argument is out of range.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        step: int = 0,
        shuffle: bool = True,
        with_epoch: bool = False,
    ) -> None:
        if size < 1:
            raise BadData("The data set is empty: there is nothing to order.")
        if batch < 1 or not 0 <= rank < world or step < 0:
            raise BadInput(
                f"batch={batch}, rank={rank}, world={world}, step={step}: expected batch >= 1, "
                "0 <= rank < world and step >= 0."
            )
        self.size, self.batch, self.seed, self.rank, self.world = size, batch, seed, rank, world
        self.shuffle, self.with_epoch = shuffle, with_epoch
        self.step = step  # the next one to hand out
        self._origin = 0  # position in the stream of step 0
        self._permutation: tuple[int, list[int]] = (-1, [])

    def indices(self, step: int) -> list[Any]:
        """Return what this rank takes at a step, counted from the start of the run: indices, or (epoch, index)."""
        first = self._origin + (step * self.world + self.rank) * self.batch
        pairs = [self._at(position) for position in range(first, first + self.batch)]
        return pairs if self.with_epoch else [index for _, index in pairs]

    def __iter__(self) -> Iterator[list[Any]]:
        while True:
            self.step += 1
            yield self.indices(self.step - 1)

    def state_dict(self, step: int | None = None) -> dict[str, int]:
        """Return what `load_state_dict` needs to go on at ``step`` (default: behind the last batch handed out)."""
        step = self.step if step is None else step
        position = self._origin + step * self.batch * self.world
        return {"seed": self.seed, "size": self.size, "step": step, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a state was stored; rank, world and batch may differ from those that stored it.

        Raises:
            BadData: the state belongs to a set of another size, or to another seed.
        """
        if state["size"] != self.size or state["seed"] != self.seed:
            raise BadData(
                f"The stored order is of {state['size']} items with seed {state['seed']}, this one of {self.size} with "
                f"seed {self.seed}: resume on the same data and seed, or start a new run."
            )
        self.step = state["step"]
        self._origin = state["position"] - self.step * self.batch * self.world

    def _at(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.size)
        if not self.shuffle:
            return epoch, offset
        if self._permutation[0] != epoch:
            self._permutation = (epoch, epoch_permutation(self.size, self.seed, epoch).tolist())
        return epoch, self._permutation[1][offset]


def split_key(key: int | tuple[int, int], size: int) -> tuple[int, int]:
    """Return (epoch, index) of a data-set key: an index (epoch 0; negative counts from the end) or a pair.

    Raises:
        IndexError: the index is outside the set (which ends a plain ``for`` loop over it).
    """
    epoch, index = key if isinstance(key, tuple) else (0, key)
    if not -size <= index < size:
        raise IndexError(f"index {index} of a set of {size} items")
    return epoch, index % size


def draw_prompt(prompts: Sequence[str], seed: int, epoch: int, index: int) -> str:
    """Return the plain prompt (the first) half of the time, else a paraphrase: a pure function of the arguments."""
    draw = mix_seed(seed, epoch, index)
    if draw % 2 == 0 or len(prompts) == 1:
        return prompts[0]
    return prompts[1 + draw // 2 % (len(prompts) - 1)]


class Part(Dataset[Any]):
    """Some items of a data set, for holding others out. Unlike torch's ``Subset`` it takes (epoch, index) pairs."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        return self.dataset[self._key(key)]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Any]:
        """Return the items of a batch, in one call where the data set has one."""
        inner = [self._key(key) for key in keys]
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(inner)
        return [self.dataset[key] for key in inner]

    def prompts(self, index: int) -> list[str]:
        """Return the prompt of an item and its paraphrases; empty where the data set does not know."""
        return self.dataset.prompts(self.indices[index]) if hasattr(self.dataset, "prompts") else []

    def _key(self, key: int | tuple[int, int]) -> int | tuple[int, int]:
        epoch, index = split_key(key, len(self))
        return (epoch, self.indices[index]) if isinstance(key, tuple) else self.indices[index]
