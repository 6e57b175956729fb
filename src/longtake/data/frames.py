"""Frames of one video among many in a folder tree or a .zip, whose file names are known already."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.errors import BadImage, BadVideo
from longtake.video.images import decode_image


@dataclass(frozen=True)
class NumberedNames(Sequence[str]):
    """File names that count up, in the space of one: prefix, number of so many digits, suffix."""

    prefix: str
    digits: int
    numbers: range
    suffix: str

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place):  # an index, or a slice as of any sequence
        if isinstance(place, slice):
            return [self._name(number) for number in self.numbers[place]]
        return self._name(self.numbers[place])

    def _name(self, number: int) -> str:
        return f"{self.prefix}{number:0{self.digits}d}{self.suffix}"


def pack_names(names: Sequence[str]) -> Sequence[str]:
    """Keep file names in as little as possible: a data set of frame folders has millions of them."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL) for name in (names[0], names[-1])]
    if parts[0] is None or parts[1] is None:
        return tuple(names)
    (prefix, first, suffix), last = parts[0].groups(), parts[1].group(2)
    step = max(1, (int(last) - int(first)) // max(1, len(names) - 1))
    numbers = range(int(first), int(last) + 1, step)
    packed = NumberedNames(prefix, len(first) if first.startswith("0") else 1, numbers, suffix)
    same = len(packed) == len(names) and all(a == b for a, b in zip(packed, names, strict=True))
    return packed if same else tuple(names)


def read_frames(
    path: Path, files: Sequence[str], indices: Sequence[int], archive: zipfile.ZipFile | None = None
) -> Tensor:
    """Read frames by number; `longtake.video.VideoReader` would list the folder, or the whole .zip, every time.

    Args:
        path: the folder or the .zip. files: names of all frames in order, relative to `path`.
        indices: which of them; repeats are read once.
        archive: the .zip, if it is open already.

    Returns:
        uint8 (T, H, W, 3), RGB.

    Raises:
        BadVideo: a frame cannot be read, or is of another size than the others.
    """
    numbers = sorted(set(indices))
    try:
        if archive is None and path.is_file():
            with zipfile.ZipFile(path) as opened:
                return read_frames(path, files, indices, opened)
        pictures = {number: _decode(path, files[number], archive) for number in numbers}
    except (BadImage, OSError, KeyError, zipfile.BadZipFile) as error:
        raise BadVideo(f"{path}: a frame cannot be read: {error}") from None
    first = pictures[numbers[0]].shape
    for number, picture in pictures.items():
        if picture.shape != first:
            raise BadVideo(
                f"{path}: {files[number]} is {picture.shape[1]}x{picture.shape[0]} and {files[numbers[0]]} is "
                f"{first[1]}x{first[0]}; one video has one size."
            )
    return torch.from_numpy(np.stack([pictures[number] for number in indices]))


def _decode(path: Path, name: str, archive: zipfile.ZipFile | None) -> np.ndarray:
    if archive is None:
        return decode_image(path / name)
    return decode_image(BytesIO(archive.read(name)), name=f"{path}:{name}")
