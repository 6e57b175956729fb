"""A folder of still images with one folder for each class: ROOT/<class>/**/<file>."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from longtake.data.layouts import class_words
from longtake.data.order import mix_seed, split_key
from longtake.data.resize import resize_frames
from longtake.errors import BadData
from longtake.video.images import IMAGE_SUFFIXES, decode_image

_MIRROR = 6  # use of the seed that is independent of others


class ImageFolder(Dataset[dict[str, Any]]):
    """Images of classes, map-style, sorted by their paths.

    An item is {"pixels": float (3, 1, height, width) in [-1, 1], "label": int, "prompt": the class in words, "source":
    path below the root}. A key is an index or an (epoch, index) pair; an index means epoch 0.

    Args:
        root: folder whose folders are the classes; names that begin with a dot are passed over.
        height, width: that images are brought to: resized so that they just cover it, then cropped in the middle.
        flip: share of images that are mirrored, as a pure function of (seed, epoch, index).

    Raises:
        BadData: no such folder, fewer than two classes, or a class without images.
    """

    def __init__(self, root: str | Path, height: int, width: int, *, flip: float = 0.0, seed: int = 0) -> None:
        self.root, self.height, self.width, self.flip, self.seed = Path(root), height, width, flip, seed
        self.class_names = image_class_names(root)
        self.files: list[tuple[Path, int]] = []
        for label, name in enumerate(self.class_names):
            found = sorted(p for p in (self.root / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise BadData(f"{self.root / name} holds no images; add some, or take the folder away.")
            self.files += [(path, label) for path in found]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = split_key(key, len(self))
        path, label = self.files[index]
        pixels = resize_frames(torch.from_numpy(decode_image(path))[None], self.height, self.width)
        if mix_seed(self.seed, _MIRROR, epoch, index) / 2**63 < self.flip:
            pixels = pixels.flip(-1)
        prompt = class_words(self.class_names[label])
        return {"pixels": pixels, "label": label, "prompt": prompt, "source": str(path.relative_to(self.root))}


def image_class_names(root: str | Path) -> tuple[str, ...]:
    """The class folders below a root, sorted. Raises BadData when there are fewer than two."""
    try:
        names = sorted(p.name for p in Path(root).iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise BadData(f"{root}: cannot be read as a folder of images ({error.strerror}).") from None
    if len(names) < 2:
        raise BadData(f"{root} holds {len(names)} class folders; expected one for each class, at least two.")
    return tuple(names)
