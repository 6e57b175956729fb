"""Frames of a video file by number, exactly: seek to a key frame, decode, recognise each frame by its timestamp."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from longtake.errors import BadVideo
from longtake.video.colour import to_rgb, turn
from longtake.video.index import VideoIndex, index_video, open_video, reason

# Below this many frames decoding from the start costs little and cannot go wrong.
SHORT = 200


class Decoder:
    """Reads frames of one file by number; keeps its place, so that reading onwards never decodes anything twice.

    Opens the file at the first read and again after a fork (FFmpeg's threads do not survive one).
    ``fallbacks`` counts the times that a frame was not the one that the index promised; from then on this file is
    decoded from its start.
    """

    def __init__(self, path: Path, index: VideoIndex, threads: int | None = None) -> None:
        self.path, self.index, self.threads = path, index, threads
        self.fallbacks = 0
        self._reindexed = False
        self._reset()

    def _reset(self) -> None:
        self._container = None
        self._frames: Iterator[VideoFrame] | None = None
        self._next, self._sought = 0, False
        self._reformatter = VideoReformatter()
        self._process = os.getpid()
        self._abandoned: object = None

    def __getstate__(self) -> dict[str, object]:
        kept = ("path", "index", "threads", "fallbacks", "_reindexed")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, number: int) -> np.ndarray:
        """Frame ``number`` (0 <= number < frame count) as upright uint8 (H, W, 3) RGB; raises BadVideo."""
        while True:
            try:
                frame = self._decode(number)
                break
            except _Mismatch:
                self._distrust()
        rgb = turn(to_rgb(frame, self._reformatter), self.index.matrix)
        if rgb.shape[:2] != (self.index.height, self.index.width):
            raise BadVideo(
                f"{self.path} changes its picture size from {self.index.width}x{self.index.height} to "
                f"{rgb.shape[1]}x{rgb.shape[0]} at frame {number}; split it there."
            )
        return rgb

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        if self._container is not None and self._process == os.getpid():
            self._frames = None
            self._container.close()
        elif self._container is not None:
            # The parent's threads are not here: closing would wait for them for ever.
            abandoned = (self._container, self._frames, self._abandoned)
            self._reset()
            self._abandoned = abandoned
        self._container, self._frames = None, None

    def _decode(self, number: int) -> VideoFrame:
        if self._process != os.getpid():
            self.close()
        key = self.index.key_before(number) if len(self.index.pts) >= SHORT else 0
        if self._frames is None or self._next > number or self._next < key:
            self._start(key)
        assert self._frames is not None
        while True:
            frame = next(self._frames, None)
            if frame is None or (self.index.timed and frame.pts != self.index.pts[self._next]):
                raise _Mismatch
            if frame.is_corrupt and self._sought:
                raise _Mismatch
            self._next += 1
            if self._next > number:
                return frame

    def _start(self, key: int) -> None:
        """Make ``self._frames`` yield frame ``key`` next."""
        if self._container is None or key == 0:
            self.close()
            self._container, self._stream = open_video(self.path, self.index.stream, self.threads)
            if key:
                # The first packet can hold what the decoder must know for all the others: x264 names its version
                # there, and 4:4:4 streams of versions before 151 come out as noise without it.
                next(_decoded(self.path, self._container, self._stream), None)
        if key:
            self._container.seek(self.index.seek_to(key), stream=self._stream, backward=True)
        from_pts = self.index.pts[key] if key else None
        self._frames = _decoded(self.path, self._container, self._stream, from_pts, key)
        self._next, self._sought = key, key > 0

    def _distrust(self) -> None:
        """After a mismatch: never seek in this file again; if it was not a seek, learn the timestamps by decoding."""
        self.fallbacks += 1
        self.close()
        if self._sought:
            self.index = self.index.without_keys()
            return
        promised = len(self.index.pts)
        index = index_video(self.path, by_decoding=True).without_keys()
        if self._reindexed or len(index.pts) < promised:
            raise BadVideo(f"{self.path} is damaged: {len(index.pts)} of its {promised} frames can be decoded.")
        self.index, self._reindexed = index, True


def _decoded(
    path: Path, container: InputContainer, stream: VideoStream, from_pts: int | None = None, number: int = 0
) -> Iterator[VideoFrame]:
    """Frames from the container's place on, without those before ``from_pts``; ``number`` is the first one's.

    A function and not a method: a generator that held the decoder would keep a dropped file open until a collection.
    """
    try:
        for frame in container.decode(stream):
            # Frames shown before the key frame that was sought may lack what they were predicted from.
            if from_pts is None or frame.pts is None or frame.pts >= from_pts:
                yield frame
                number += 1
    except av.FFmpegError as error:
        raise BadVideo(f"{path} is damaged: frame {number} cannot be decoded ({reason(error)}).") from None


class _Mismatch(Exception):
    """The decoder gave another frame than the index promised."""
