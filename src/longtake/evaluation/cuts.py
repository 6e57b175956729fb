"""Which frames of which videos one side of a protocol compares: a pure function of the source, the side and a seed.

Draws belong to a video's name and not to its place in a list, so files that come or go do not move those of others.
Clips are put in the order of the hashes of their content. Any order that does not depend on names, processes or batches
would do; this one also makes its first and second half two random halves.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from longtake.data.order import mix_seed
from longtake.errors import BadData, BadVideo
from longtake.evaluation.protocol import Side, digest
from longtake.evaluation.sources import ClipSource

_SELECT, _START = range(2)


@dataclass(frozen=True)
class Cut:
    """One clip: frames of a video of a source, mirrored or not. `digest` is of the content, see `ClipSource.digest`."""

    video: int
    frames: tuple[int, ...]
    mirrored: bool = False
    digest: str = ""


@dataclass(frozen=True)
class Cuts:
    """The clips of one side.

    Attributes:
        source, side: what they were cut from and how.
        clips: in the order of their content's hashes.
        problems: (name, reason) of videos that cannot be read. short: of those that a window does not fit into.
        more: windows that there were beyond the count that the side asks for.
    """

    source: ClipSource
    side: Side
    clips: tuple[Cut, ...]
    problems: tuple[tuple[str, str], ...]
    short: tuple[tuple[str, str], ...]
    more: int

    @property
    def index_hash(self) -> str:
        """A hash of what all clips show, independent of names and order of files."""
        return digest([[cut.digest, cut.mirrored] for cut in self.clips])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the prepared clips."""
        if self.side.size is not None:
            return self.side.size
        video = self.source.videos[self.clips[0].video]
        return video.height, video.width

    def name(self, clip: int) -> str:
        """The name of the video that a clip comes from."""
        return self.source.videos[self.clips[clip].video].name


def cut(source: ClipSource, side: Side, seed: int = 0, *, what: str = "real", protocol: str = "ours") -> Cuts:
    """Choose the clips of one side.

    Args:
        source: the videos. side: which frames of which of them. seed: of all draws.
        what: "real" or "fake"; protocol: the protocol's name. Both for messages.

    Raises:
        BadData: no video is long enough, sizes are mixed where the protocol takes pictures as they are, or nothing can
            be read.
    """
    windows: list[tuple[int, int]] = []  # (video, first frame)
    short: list[tuple[str, str]] = []
    for number, video in enumerate(source.videos):
        starts = video.frames - side.span + 1
        if starts < 1:
            short.append((video.name, f"has {video.frames} frames and a window takes {side.span}"))
        else:
            windows += [(number, first) for first in _starts(side, starts, mix_seed(seed, _name(video.name), _START))]
    if not windows:
        longest = max(source.videos, key=lambda video: video.frames)
        fits = (longest.frames - 1) // side.stride + 1
        remedy = [f"--set frames={fits}"] if fits < side.frames else []
        remedy += [f"--set {what}.shortest={longest.frames}"] if longest.frames < (side.shortest or 0) else []
        raise BadData(
            f"all {len(source.videos)} videos of {source.name} are shorter than the window of protocol {protocol}, "
            f"{side.span} frames; the longest, {longest.name}, has {longest.frames}: take less, "
            f"{' '.join(remedy)}, or choose another protocol."
        )
    chosen = _select(source, side, windows, seed)
    _check_sizes(source, side, chosen, what, protocol)
    clips: list[Cut] = []
    problems = list(source.problems)
    for number, first in chosen:
        frames = tuple(range(first, first + (side.frames - 1) * side.stride + 1, side.stride))
        try:
            content = source.digest(number, frames)
        except BadVideo as error:
            problems.append((source.videos[number].name, str(error)))
            continue
        clips += [Cut(number, frames, mirrored, content) for mirrored in ((False, True) if side.mirror else (False,))]
    if not clips:
        raise BadData(f"none of the {len(chosen)} clips of {source.name} can be read: {problems[-1][1]}")
    clips.sort(key=lambda cut: (_mixed(cut.digest), cut.mirrored))
    return Cuts(source, side, tuple(clips), tuple(problems), tuple(short), len(windows) - len(chosen))


def _starts(side: Side, count: int, seed: int) -> Sequence[int]:
    """First frames of the windows of one video that has `count` possible ones."""
    if side.start == "every":
        return range(count)
    if side.start == "first":
        return range(0, count, side.span)[: side.windows]
    windows = min(side.windows, count)
    if side.start == "middle":
        return [(2 * k + 1) * (count - 1) // (2 * windows) for k in range(windows)]
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:windows]
    return sorted(drawn.tolist())


def _select(source: ClipSource, side: Side, windows: list[tuple[int, int]], seed: int) -> list[tuple[int, int]]:
    """Choose `count` of the windows."""
    windows = sorted(windows, key=lambda window: (source.videos[window[0]].name, window[1]))
    if side.select == "all" or len(windows) <= side.count:
        return windows
    if side.select == "first":
        return windows[: side.count]
    ranks = {window: mix_seed(seed, _name(source.videos[window[0]].name), window[1], _SELECT) for window in windows}
    return sorted(sorted(windows, key=ranks.__getitem__)[: side.count])


def _check_sizes(source: ClipSource, side: Side, windows: list[tuple[int, int]], what: str, protocol: str) -> None:
    if side.size is not None:
        return
    first: dict[tuple[int, int], str] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    for number, _ in windows:
        video = source.videos[number]
        size = video.width, video.height
        first.setdefault(size, video.name)
        sizes[size] += 1
    if len(sizes) > 1:
        (a, _), (b, _) = sizes.most_common(2)
        raise BadData(
            f"{source.name} mixes resolutions, {len(sizes)} of them: {a[0]}x{a[1]} ({first[a]}), {b[0]}x{b[1]} "
            f"({first[b]}); protocol {protocol} takes pictures as they are: bring them to one size, for example "
            f"--set {what}.size={min(min(size) for size in sizes)}."
        )


def _name(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little")


def _mixed(content: str) -> str:
    """Hashes of one file's windows begin alike; those of this do not."""
    return hashlib.sha256(content.encode()).hexdigest()
