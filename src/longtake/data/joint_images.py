"""Single images beside clips, for training on both at once (Latte, arXiv 2401.03048, "image-video joint training")."""

from typing import Any

import torch
from torch.utils.data import Dataset

from longtake.data.order import mix_seed, split_key
from longtake.errors import BadData

_USE = 6  # of the seed, apart from other draws


class WithImages(Dataset[dict[str, Any]]):
    """The items of a data set, each with single frames of other items, which are a pure function of (seed, epoch, index).

    An item gains "images": (C, count, H, W), frames of its "latents" (of a tokenizer with stride 1 in time) or, without
    those, of its "pixels"; and "image_labels": int64 (count,) where items have a "label".

    Args:
        dataset: map-style, takes (epoch, index) keys.
        count: images beside each clip. seed: of the draws.

    Raises:
        BadData: fewer than two clips, so that there is no other one.
    """

    def __init__(self, dataset: Any, count: int, seed: int = 0) -> None:
        if len(dataset) < 2:
            raise BadData(f"{len(dataset)} clip is too few for single images of other clips; use at least 2.")
        self.dataset, self.count, self.seed = dataset, count, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = split_key(key, len(self))
        item = self.dataset[key]
        frames, labels = [], []
        for number in range(self.count):
            draw = mix_seed(self.seed, _USE, epoch, index, number)
            other = self.dataset[(epoch, (index + 1 + draw % (len(self) - 1)) % len(self))]
            clip = other["latents" if "latents" in other else "pixels"]
            frame = mix_seed(draw, _USE) % clip.shape[1]
            frames.append(clip[:, frame])
            labels.append(int(other.get("label", -1)))
        item = {**item, "images": torch.stack(frames, dim=1)}
        return {**item, "image_labels": torch.tensor(labels)} if "label" in item else item
