"""Windows: which frames of a video make a training clip. Pure functions of the frame count and a start number.

A rule says for a video of n frames how many windows there are (`count_windows`) and which frames the k-th holds
(`window_frames`). Drawing k uniformly gives the random windows of each source below; W = frames * stride.

========== ==================================================================================================
ours       constant stride, every valid start: n - (frames - 1) * stride of them; with `fps` the frames nearest
           in time to start, start + stride / fps, ... so that a variable frame rate comes out even
latte      Latte on UCF-101 and FaceForensics: n - W starts (at least one), then linspace over W frames rounded
           down, so not a constant stride; shorter videos are squeezed whole, down to `frames` frames
latte-step Latte on SkyTimelapse and Taichi-HD: the same starts, constant stride
tats       TATS on videos: n - W + 1 windows of W frames in a row, every stride-th kept
tats-step  TATS on frame folders: n - W starts, so n > W, constant stride
========== ==================================================================================================

The starts of latte, latte-step and tats-step leave out the last one or two that would fit: so does the published code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtake.errors import BadInput, UnknownName, nearest

RULES = ("ours", "latte", "latte-step", "tats", "tats-step")


@dataclass(frozen=True)
class WindowRule:
    """How windows are taken.

    Attributes:
        frames: frames of a window. stride: source frames from one to the next (of the resampled video with `fps`).
        rule: see the module. fps: resample by time to this rate first; only with "ours".
        longer: take only videos with more than W frames (as Latte does on SkyTimelapse).

    Raises:
        BadInput: frames or stride below 1, or fps with a published rule. UnknownName: no such rule.
    """

    frames: int
    stride: int = 1
    rule: str = "ours"
    fps: float | None = None
    longer: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UnknownName(f"Unknown window rule '{self.rule}'.{nearest(self.rule, RULES)}")
        if self.frames < 1 or self.stride < 1:
            raise BadInput(f"frames is {self.frames} and stride is {self.stride}; both must be at least 1.")
        if self.fps is not None and (self.rule != "ours" or not 0 < self.fps < float("inf")):
            raise BadInput(f"fps is {self.fps} with the window rule '{self.rule}': it resamples only with 'ours'.")


def count_windows(rule: WindowRule, seconds: Sequence[float]) -> int:
    """Return how many windows a video has; 0 if it is too short.

    Args:
        rule: how windows are taken.
        seconds: time of each frame, ascending. Only `fps` looks at the values; else their number counts.
    """
    count, span = len(seconds), rule.frames * rule.stride
    if count < 1 or (rule.longer and count <= span):
        return 0
    if rule.fps is not None:
        return _resampled_starts(rule, np.asarray(seconds))
    if rule.rule == "ours":
        return max(0, count - (rule.frames - 1) * rule.stride)
    if rule.rule == "tats":
        return max(0, count - span + 1)
    if rule.rule == "tats-step":
        return max(0, count - span)
    enough = rule.frames if rule.rule == "latte" else (rule.frames - 1) * rule.stride + 1
    return max(0, count - span - 1) + 1 if count >= enough else 0


def window_frames(rule: WindowRule, seconds: Sequence[float], number: int) -> list[int]:
    """Return the frame numbers of a window, 0 <= number < `count_windows`."""
    count, span = len(seconds), rule.frames * rule.stride
    if rule.fps is not None:
        return _resampled_window(rule, np.asarray(seconds), number)
    if rule.rule == "latte":
        end = min(number + span, count)
        return np.linspace(number, end - 1, rule.frames, dtype=int).tolist()
    return list(range(number, number + (rule.frames - 1) * rule.stride + 1, rule.stride))


def needed_frames(rule: WindowRule) -> str:
    """Say what a video must have at least: "48 frames", "2.1 s"."""
    if rule.fps is not None:
        return f"{(rule.frames - 1) * rule.stride / rule.fps:.3g} s"
    count = 1
    while not count_windows(rule, range(count)):
        count += 1
    return f"{count} frames"


def window_fps(rule: WindowRule, seconds: Sequence[float], fps: float, frames: Sequence[int]) -> float:
    """Return the frame rate at which a window plays at the speed of its video."""
    if rule.fps is not None:
        return rule.fps / rule.stride
    if len(frames) < 2:
        return fps
    return fps * (len(frames) - 1) / (frames[-1] - frames[0])


def _resampled_starts(rule: WindowRule, seconds: np.ndarray) -> int:
    """Frames early enough that the window's last moment is at most half a source frame behind the last frame."""
    assert rule.fps is not None
    half = (seconds[-1] - seconds[0]) / (2 * max(1, len(seconds) - 1))
    latest = seconds[-1] + half - (rule.frames - 1) * rule.stride / rule.fps
    return int(np.searchsorted(seconds, latest + 1e-9, side="right"))


def _resampled_window(rule: WindowRule, seconds: np.ndarray, number: int) -> list[int]:
    """The frame nearest to each moment, the earlier one on a tie (to a microsecond: timestamps are rounded)."""
    assert rule.fps is not None
    wanted = seconds[number] + np.arange(rule.frames) * (rule.stride / rule.fps)
    after = np.searchsorted(seconds, wanted - 1e-6).clip(0, len(seconds) - 1)
    before = (after - 1).clip(0)
    earlier = wanted - seconds[before] <= seconds[after] - wanted + 1e-6
    return np.where(earlier, before, after).tolist()
