"""Frames of a video file by number, exactly: seek to a key frame, decode, recognise each frame by its timestamp."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from longtake.errors import BadVideo
from longtake.video.colour import to_rgb, turn
from longtake.video.index import VideoIndex, index_video, open_video, reason

# Below this many frames decoding from the start costs little and cannot go wrong.
SHORT = 200


class Decoder:
    """Reads frames of one file by number; keeps its place, so that reading onwards never decodes anything twice.

    Opens the file at the first read and again after a fork (FFmpeg's threads do not survive one).
    ``fallbacks`` counts the times that a seek gave another frame than the index promised, so that the file was
    decoded from its start instead.
    """

    def __init__(self, path: Path, index: VideoIndex, threads: int | None = None) -> None:
        self.path, self.index, self.threads = path, index, threads
        self.fallbacks = 0
        self._seekable = True
        self._reset()

    def _reset(self) -> None:
        self._container = None
        self._frames: Iterator[VideoFrame] | None = None
        self._next = 0
        self._reformatter = VideoReformatter()
        self._process = os.getpid()
        self._abandoned: object = None

    def __getstate__(self) -> dict[str, object]:
        kept = ("path", "index", "threads", "fallbacks", "_seekable")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, number: int) -> np.ndarray:
        """Frame ``number`` (0 <= number < frame count) as upright uint8 (H, W, 3) RGB; raises BadVideo."""
        try:
            frame = self._decode(number)
        except _Mismatch:
            self._recover()
            frame = self._decode(number)
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
        key = 0
        if self._seekable and len(self.index.pts) >= SHORT:
            key = self.index.key_before(number)
        if self._frames is None or self._next > number or self._next < key:
            self._start(key)
        assert self._frames is not None
        while True:
            frame = next(self._frames, None)
            if frame is None or (self.index.timed and frame.pts != self.index.pts[self._next]):
                found = "nothing" if frame is None else str(frame.pts)
                raise _Mismatch(found)
            self._next += 1
            if self._next > number:
                return frame

    def _start(self, key: int) -> None:
        """Make ``self._frames`` yield frame ``key`` next."""
        if self._container is None or key == 0:
            self.close()
            self._container, self._stream = open_video(self.path, self.index.stream, self.threads)
        if key:
            self._container.seek(self.index.pts[key], stream=self._stream, backward=True)
        self._frames = self._run(self.index.pts[key] if key else None)
        self._next = key

    def _run(self, from_pts: int | None) -> Iterator[VideoFrame]:
        assert self._container is not None
        try:
            for frame in self._container.decode(self._stream):
                # Frames shown before the key frame that was sought may lack what they were predicted from.
                if from_pts is None or frame.pts is None or frame.pts >= from_pts:
                    yield frame
        except av.FFmpegError as error:
            near = f"frame {self._next}"
            raise BadVideo(f"{self.path} is damaged: {near} cannot be decoded ({reason(error)}).") from None

    def _recover(self) -> None:
        """After a mismatch: never seek in this file again, and trust only timestamps that the decoder gave."""
        self.fallbacks += 1
        self._seekable = False
        self.close()
        promised = len(self.index.pts)
        self.index = index_video(self.path, by_decoding=True)
        if len(self.index.pts) < promised:
            raise BadVideo(
                f"{self.path} is damaged: {len(self.index.pts)} of {promised} frames can be decoded; re-encode it."
            )


class _Mismatch(Exception):
    """The decoder gave another frame than the index promised."""
