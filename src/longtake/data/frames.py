"""Frames of one video among many in a folder tree or a .zip, whose file names are known already."""

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.errors import BadImage, BadVideo
from longtake.video.images import decode_image


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
