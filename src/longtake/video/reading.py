"""Reading: ``VideoReader`` gives frames by number, ``read_clip`` gives a Clip of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.video.clip import Clip, from_uint8
from longtake.video.decoding import Decoder
from longtake.video.folders import FOLDER_FPS, FrameFolder
from longtake.video.index import VideoIndex, index_video


class VideoReader:
    """Frames of one video by number, exact under any codec, container and variable frame rate.

    ``path`` is any file that PyAV decodes, a folder of frames, or a ``.zip`` of frames. The index pass runs at once
    (so a bad file is refused here) unless ``index`` brings the result of an earlier one; the file itself is opened at
    the first ``frames`` call and reopened after a fork, so a reader may be shared with worker processes (not with
    threads). Audio is never touched.

    Args:
        threads: decoder threads; None lets FFmpeg choose. Use 1 in data-loader workers.
        folder_fps: frame rate of a folder or zip of frames, which cannot tell its own.

    Raises:
        BadVideo: the file is missing, truncated, empty, without frames, sound only or not video.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        index: VideoIndex | None = None,
        folder_fps: float = FOLDER_FPS,
    ) -> None:
        self.path = Path(path)
        if self.path.is_dir() or self.path.suffix.lower() == ".zip":
            self._source: FrameFolder | Decoder = FrameFolder(self.path, folder_fps)
        else:
            self._source = Decoder(self.path, index or index_video(self.path), threads)

    @property
    def index(self) -> VideoIndex:
        """The result of the index pass; plain values that can be stored and given to a later reader."""
        return self._source.index

    @property
    def frame_count(self) -> int:
        """Number of frames that the video shows."""
        return len(self.index.pts)

    @property
    def fps(self) -> float:
        """Frames per second; the mean under a variable frame rate."""
        return self.index.fps

    @property
    def height(self) -> int:
        """Rows of the upright picture."""
        return self.index.height

    @property
    def width(self) -> int:
        """Columns of the upright picture."""
        return self.index.width

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Seconds of each frame, counted from the first frame."""
        return self.index.seconds

    @property
    def rotation(self) -> int:
        """Clockwise degrees (0, 90, 180, 270) by which stored frames are turned; ``frames`` has done it."""
        return self.index.rotation

    @property
    def fallbacks(self) -> int:
        """How often a seek missed and the file was decoded from the start instead."""
        return self._source.fallbacks

    def frames(self, indices: Sequence[int]) -> Tensor:
        """Frames by number, in the order asked, repeats allowed -> uint8 (T, H, W, 3) RGB.

        Raises BadInput for a number outside 0 .. frame_count-1, BadVideo when a frame cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= self.frame_count)]
        if outside.size:
            raise BadInput(
                f"{self.path} has no frame {outside[0]}; its {self.frame_count} frames are 0 to {self.frame_count - 1}."
            )
        out = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        numbers, slots = np.unique(wanted, return_inverse=True)
        for i, number in enumerate(numbers.tolist()):
            out[slots == i] = self._source.read(number)
        return torch.from_numpy(out)

    def close(self) -> None:
        """Close the file; the reader opens it again when it is used again."""
        self._source.close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.frame_count


def read_clip(
    path: str | Path, start: int = 0, frames: int | None = None, stride: int = 1, fps: float | None = None
) -> Clip:
    """Read a video (or part of one) as a Clip of one.

    Args:
        path: a video file, a folder of frames, or a zip of frames.
        start: number of the first frame in the file.
        frames: how many frames to return; None for all up to the end.
        stride: take every stride-th frame (after resampling, when ``fps`` is given).
        fps: resample to this rate by timestamps: output frame k is the one nearest to ``k / fps`` seconds after
            ``start``. None keeps the file's own frames.

    Returns:
        pixels (1, 3, T, H, W) in [-1, 1]; fps is the rate of the returned frames; times are the seconds at which
        the file shows each of them.

    Raises:
        BadVideo: the file cannot be read. BadInput: a start, count, stride or rate that the video does not have.
    """
    with VideoReader(path) as reader:
        indices = frame_indices(reader.index, start, frames, stride, fps, name=str(path))
        seconds = reader.index.seconds
        rate = (reader.fps if fps is None else fps) / stride
        return Clip(from_uint8(reader.frames(indices))[None], rate, tuple(seconds[i] for i in indices))


def frame_indices(
    index: VideoIndex,
    start: int = 0,
    frames: int | None = None,
    stride: int = 1,
    fps: float | None = None,
    name: str = "the video",
) -> list[int]:
    """The frame numbers that ``read_clip`` reads; arguments as there, ``name`` is for messages."""
    count = len(index.pts)
    if not 0 <= start < count:
        raise BadInput(f"start is {start}; {name} has frames 0 to {count - 1}.")
    if stride < 1 or (frames is not None and frames < 1):
        raise BadInput(f"stride is {stride} and frames is {frames}; both must be at least 1.")
    if fps is None:
        chosen = list(range(start, count, stride))
    elif not 0 < fps < float("inf"):
        raise BadInput(f"fps is {fps}; it must be a number above zero.")
    else:
        chosen = _resample(np.asarray(index.seconds), start, fps, 1 / index.fps)[::stride]
    if frames is not None and frames > len(chosen):
        raise BadInput(f"{frames} frames were asked of {name}; from frame {start} on it gives {len(chosen)} of them.")
    return chosen[:frames]


def _resample(seconds: np.ndarray, start: int, fps: float, last_frame: float) -> list[int]:
    """Frame numbers nearest to start, start + 1/fps, ... while the video plays; the earlier one on a tie."""
    # Containers round timestamps to a millisecond or so: a step that ends within 2 ms of the end is outside.
    playing = seconds[-1] + last_frame - seconds[start] - min(2e-3, 0.5 / fps)
    wanted = seconds[start] + np.arange(max(1, int(np.ceil(playing * fps)))) / fps
    after = np.searchsorted(seconds, wanted - 1e-9).clip(1, max(1, len(seconds) - 1))
    if len(seconds) == 1:
        return [0] * len(wanted)
    nearer = wanted - seconds[after - 1] <= seconds[after] - wanted + 1e-6
    return np.where(nearer, after - 1, after).tolist()
