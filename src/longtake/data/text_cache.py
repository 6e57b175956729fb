"""States of a frozen text encoder, computed once per different prompt and kept as safetensors shards.

Only the states of real tokens are stored, one behind another, with the places where each prompt begins and ends::

    index.json             format, encoder hash, width, dtype, the list of shards
    text-00000.safetensors states (tokens, width), ends (prompts,) int64; the prompts in the file's metadata

Like `longtake.data.latent_cache`, an interrupted run goes on behind the last whole shard.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from longtake.errors import BadData, BadOutput
from longtake.video import write_bytes

FORMAT = "longtake.text/1"

EncodeText = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Map prompts to states (B, L, D) and mask (B, L), true at real tokens."""


def cache_text(
    prompts: Iterable[str],
    encode: EncodeText,
    out: str | Path,
    *,
    encoder_hash: str,
    batch: int = 64,
    dtype: torch.dtype = torch.float16,
    shard_size: int = 4096,
    progress: bool = True,
) -> int:
    """Encode every different prompt that is not in the cache yet; go on if one is begun, extend it if one is complete.

    Args:
        prompts: any prompts, repeats and all.
        encode: the frozen encoder.
        out: folder, made if missing (its parent must exist).
        encoder_hash: content hash of encoder and word list; another one refuses the cache.
        batch: prompts encoded at a time. shard_size: prompts per file. dtype: of what is stored.

    Returns:
        How many different prompts the cache now holds.

    Raises:
        BadData: the folder holds the states of another encoder. BadOutput: it cannot be written.
    """
    out = Path(out)
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise BadOutput(f"Cannot make the cache folder {out}: {error.strerror}.") from None
    index = {"format": FORMAT, "encoder": encoder_hash, "shards": []}
    known: set[str] = set()
    if (out / "index.json").exists():
        begun = CachedText(out, encoder_hash=encoder_hash)
        index, known = begun.index, set(begun.places)
    todo = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
    shards = [todo[first : first + shard_size] for first in range(0, len(todo), shard_size)]
    for shard in track(shards, "Encoding text", disable=not progress):
        states: list[Tensor] = []
        for first in range(0, len(shard), batch):
            with torch.inference_mode():
                rows, mask = encode(shard[first : first + batch])
            states += [row[real].to("cpu", dtype) for row, real in zip(rows, mask.bool(), strict=True)]
        ends = torch.tensor(list(accumulate(len(row) for row in states)))
        file = f"text-{len(index['shards']):05d}.safetensors"
        tensors = {"states": torch.cat(states), "ends": ends}
        write_bytes(out / file, save(tensors, {"prompts": json.dumps(shard)}))
        index["shards"].append(file)
        write_bytes(out / "index.json", json.dumps(index, indent=1).encode())
    return len(known) + len(todo)


class CachedText:
    """The states of a cache, by prompt.

    Attributes:
        places: prompt -> (shard, first token, behind the last token).

    Args:
        root: the folder that `cache_text` wrote. encoder_hash: of the encoder in use; None checks nothing.
        dtype: of the returned states.

    Raises:
        BadData: no cache there, or one of another encoder.
    """

    def __init__(
        self, root: str | Path, *, encoder_hash: str | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.root, self.dtype = Path(root), dtype
        try:
            self.index: dict[str, Any] = json.loads((self.root / "index.json").read_text())
            if self.index["format"] != FORMAT:
                raise ValueError("another format")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadData(f"No text cache in {root} ({error}).") from None
        if encoder_hash is not None and encoder_hash != self.index["encoder"]:
            raise BadData(
                f"The text states in {root} are of encoder {self.index['encoder'][:12]}, not of {encoder_hash[:12]}: "
                "choose another folder, or load the encoder that they belong to."
            )
        self.places: dict[str, tuple[int, int, int]] = {}
        self._files: dict[int, Any] = {}
        for shard in range(len(self.index["shards"])):
            file = self._open(shard)
            ends = file.get_tensor("ends").tolist()
            prompts = json.loads(file.metadata()["prompts"])
            for prompt, first, end in zip(prompts, [0, *ends], ends, strict=False):
                self.places[prompt] = (shard, first, end)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, prompt: str) -> bool:
        return prompt in self.places

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # open files do not travel to worker processes

    def states(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return states (B, L, D), zero behind each prompt's end, and mask (B, L), true before it.

        Raises:
            BadData: a prompt is not in the cache.
        """
        missing = next((prompt for prompt in prompts if prompt not in self.places), None)
        if missing is not None:
            raise BadData(f"The text cache {self.root} has no states of the prompt '{missing[:80]}': encode it first.")
        rows = []
        for prompt in prompts:
            shard, first, end = self.places[prompt]
            rows.append(self._open(shard).get_slice("states")[first:end].to(self.dtype))
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask

    def _open(self, shard: int) -> Any:
        if shard not in self._files:
            path = self.root / self.index["shards"][shard]
            try:
                self._files[shard] = safe_open(path, framework="pt")
            except Exception as error:  # safetensors raises its own type for a damaged file, OSError for a missing one
                raise BadData(f"Cannot read {path} ({error}): delete the cache and encode again.") from None
        return self._files[shard]
