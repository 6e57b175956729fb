"""A folder (or zip) of images as a video: one frame per file, ordered by the last number in each name."""

import re
import zipfile
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np

from longtake.errors import BadImage, BadInput, BadVideo
from longtake.video.colour import UPRIGHT
from longtake.video.images import IMAGE_SUFFIXES, decode_image
from longtake.video.index import VideoIndex

FOLDER_FPS = 25.0


class FrameFolder:
    """Frames of a folder or ``.zip`` by number. Other files in it are ignored.

    Order: by the last run of digits in the name ("v_x_000010.jpg", "img-10.png" and "10.webp" are all frame 10);
    without any digits, by name. Two files with the same number, or sizes that differ, are refused with BadVideo.
    """

    def __init__(self, path: Path, fps: float = FOLDER_FPS) -> None:
        if not 0 < fps < float("inf"):
            raise BadInput(f"folder_fps is {fps}; it must be a number above zero.")
        self.path = path
        self.fallbacks = 0
        self.files = order_frames(path, _list_images(path))
        height, width = self._decode(0).shape[:2]
        count = len(self.files)
        rate = Fraction(fps).limit_denominator(1001)
        self.index = VideoIndex(
            pts=tuple(range(count)),
            time_base=1 / rate,
            keys=tuple(range(count)),
            seeks=tuple(range(count)),
            fps=fps,
            height=height,
            width=width,
            matrix=UPRIGHT,
            stream=0,
            timed=True,
        )

    def read(self, number: int) -> np.ndarray:
        """Frame ``number`` as uint8 (H, W, 3) RGB."""
        pixels = self._decode(number)
        if pixels.shape[:2] != (self.index.height, self.index.width):
            raise BadVideo(
                f"{self.path}: {self.files[number]} is {pixels.shape[1]}x{pixels.shape[0]} and the first frame is "
                f"{self.index.width}x{self.index.height}; one video has one size."
            )
        return pixels

    def close(self) -> None:
        """Nothing is kept open."""

    def _decode(self, number: int) -> np.ndarray:
        name = self.files[number]
        try:
            if self.path.is_dir():
                return decode_image(self.path / name)
            with zipfile.ZipFile(self.path) as archive:
                return decode_image(BytesIO(archive.read(name)), name=f"{self.path}:{name}")
        except BadImage as error:
            raise BadVideo(f"{self.path}: frame {number} cannot be read: {error}") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise BadVideo(f"{self.path}: frame {number} ({name}) cannot be read: {error}.") from None


def _list_images(path: Path) -> list[str]:
    try:
        if path.is_dir():
            names = [entry.name for entry in path.iterdir() if entry.is_file()]
        else:
            with zipfile.ZipFile(path) as archive:
                names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise BadVideo(f"{path} cannot be opened: {error}.") from None
    names = [n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES and not Path(n).name.startswith(".")]
    if not names:
        raise BadVideo(f"{path} holds no images, so it is not a folder of frames.")
    if len({str(Path(name).parent) for name in names}) > 1:
        raise BadVideo(f"{path} holds frames in several folders; one folder is one video.")
    return names


def order_frames(path: Path, names: list[str]) -> list[str]:
    """Names of the frames of ``path`` in order, see `FrameFolder`; BadVideo when two of them have one number."""
    numbers = {name: re.findall(r"\d+", Path(name).stem) for name in names}
    if not any(numbers.values()):
        return sorted(names)
    bare = next((name for name in names if not numbers[name]), None)
    if bare:
        raise BadVideo(f"{path}: {bare} has no number in its name and the other frames have; number it or remove it.")
    seen: dict[int, str] = {}
    for name in sorted(names):
        number = int(numbers[name][-1])
        if number in seen:
            raise BadVideo(f"{path}: {seen[number]} and {name} are both frame {number}; keep one.")
        seen[number] = name
    return [seen[number] for number in sorted(seen)]
