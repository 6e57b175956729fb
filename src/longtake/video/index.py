"""The index pass: every frame's timestamp in presentation order, learnt once so that reading by number is exact."""

import bisect
import gc
import os
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av import VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from longtake.errors import BadVideo
from longtake.video.colour import Matrix, clockwise_degrees, display_matrix

# One packet is one shown frame in these codecs, so demuxing is enough. In the others (hidden frames of VP8, packed
# and empty frames of MPEG-4) only the decoder knows, and the pass decodes.
_INTRA_ONLY = frozenset("ffv1 mjpeg png prores dnxhd rawvideo huffyuv ffvhuff utvideo dvvideo".split())
_ONE_FRAME_PER_PACKET = _INTRA_ONLY | frozenset("h264 hevc vvc av1 vp9 gif qtrle".split())
# Containers that keep true timestamps across a seek. AVI has only places, so that is safe without reordered frames;
# in the rest (MPEG program streams, raw streams) FFmpeg makes timestamps up, and files are decoded from their start.
_SEEKABLE = frozenset("mov matroska mpegts flv asf nut ogg mxf".split())
_STILLS = ("image2", "_pipe")
_PLAYLISTS = frozenset("hls dash concat concatf tty sdp rtsp".split())
_DEFAULT_RATE = 25
# A file that the parent dropped but had not collected yet must not be closed in a forked worker: closing waits for
# decoder threads that only the parent has. What lives at the fork is therefore left out of the worker's collections.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


@dataclass(frozen=True)
class VideoIndex:
    """What an index pass learns of one file; plain values, so that it can be pickled, stored and given back.

    Attributes:
        pts: timestamp of each shown frame in presentation order, in units of ``time_base``; the frame's number when
            the file has no timestamps.
        time_base: seconds per unit of ``pts``.
        keys: numbers of the frames at which decoding can start, ascending; the first is 0.
        seeks: for each key, the timestamp to seek to (containers differ in whether they look for pts or dts).
        fps: frames per second; the mean where the rate varies.
        height, width: of the upright picture.
        matrix: display matrix as signs, see ``colour.display_matrix``.
        stream: number of the video stream in the container.
        timed: the decoder's timestamps are known and distinct, so a frame can be recognised by its own.
    """

    pts: tuple[int, ...]
    time_base: Fraction
    keys: tuple[int, ...]
    seeks: tuple[int, ...]
    fps: float
    height: int
    width: int
    matrix: Matrix
    stream: int
    timed: bool

    @property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of each frame after the first one."""
        return tuple(float((pts - self.pts[0]) * self.time_base) for pts in self.pts)

    @property
    def rotation(self) -> int:
        """Clockwise degrees by which stored frames are turned to stand upright."""
        return clockwise_degrees(self.matrix)

    def key_before(self, frame: int) -> int:
        """The last frame number at or before ``frame`` at which decoding can start."""
        return self.keys[bisect.bisect_right(self.keys, frame) - 1]

    def seek_to(self, key: int) -> int:
        """The timestamp to seek to for the key frame numbered ``key``."""
        return self.seeks[bisect.bisect_left(self.keys, key)]

    def without_keys(self) -> "VideoIndex":
        """The same index for a file that can only be decoded from its start."""
        return replace(self, keys=self.keys[:1], seeks=self.seeks[:1])


def open_video(path: Path, stream: int | None = None, threads: int | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a file's video stream: the first that is not a cover picture, or the one numbered ``stream``.

    Raises BadVideo when the file is missing, empty, unreadable, not video, or has sound only.
    """
    _check_file(path)
    try:
        # "file:" keeps a name with a colon from being read as a protocol; the whitelist keeps playlists off the net.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadVideo(f"{path} {_why_unreadable(path, error)}.") from None
    try:
        return container, _choose_stream(path, container, stream, threads)
    except BaseException:
        container.close()
        raise


def _why_unreadable(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        mp4 = file.read(8)[4:] == b"ftyp"
    if mp4 or _promised_bytes(path) > path.stat().st_size:
        return "is truncated or damaged: its table of contents is missing or cut off"
    return f"cannot be read as video: {reason(error)}"


def _check_file(path: Path) -> None:
    if not path.exists():
        raise BadVideo(f"{path} does not exist.")
    if not path.is_file():
        raise BadVideo(f"{path} is not a file.")
    if not os.access(path, os.R_OK):
        raise BadVideo(f"{path} cannot be opened: no permission to read it.")
    if path.stat().st_size == 0:
        raise BadVideo(f"{path} is empty (0 bytes).")


def _choose_stream(path: Path, container: InputContainer, number: int | None, threads: int | None) -> VideoStream:
    formats = container.format.name
    if any(still in formats for still in _STILLS):
        raise BadVideo(f"{path} is a still image, not a video; read_image reads it.")
    if not _PLAYLISTS.isdisjoint(formats.split(",")):
        raise BadVideo(f"{path} is not a video file (it looks like '{formats}').")
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if number is not None:
        moving = [s for s in moving if s.index == number]
    if not container.streams:
        raise BadVideo(f"{path} is truncated or damaged: no stream can be found in it.")
    if not moving:
        kinds = sorted({s.type for s in container.streams if s.type != "video"})
        raise BadVideo(f"{path} has no video stream; it holds {' and '.join(kinds) or 'a cover picture'} only.")
    stream = moving[0]
    if stream.codec_context is None:
        raise BadVideo(f"{path} uses a video codec that this build of FFmpeg cannot decode.")
    stream.thread_type = "AUTO"
    if threads is not None:
        stream.thread_count = threads
    return stream


@dataclass
class _Pass:
    """What one walk over a file's packets saw."""

    pts: list[int]  # of packets whose frames are shown, in file order
    keys: dict[int, int]  # pts -> timestamp to seek to
    complete: bool  # every packet had a timestamp
    count: int  # packets, shown or not
    decoded: list[int | None]  # of decoded frames, in the order that the decoder gave them
    first: VideoFrame | None


def index_video(path: Path, by_decoding: bool = False) -> VideoIndex:
    """Run the index pass over ``path``; demuxes, and decodes only where packets do not tell (or when told to).

    Raises BadVideo naming the file and the reason: missing, truncated, empty, no frames, sound only, not video.
    """
    container, stream = open_video(path)
    with container:
        by_decoding = by_decoding or not _packets_are_frames(container, stream)
        seen = _walk(path, container, stream, by_decoding)
        first = seen.first
        if first is None:
            raise BadVideo(f"{path} holds no video frames.")
        if not by_decoding and not _packets_tell(seen, first.pts):
            return index_video(path, by_decoding=True)
        shown = seen.decoded if by_decoding else sorted(seen.pts)
        timed = None not in shown and all(a < b for a, b in pairwise(shown))  # pyright: ignore[reportOperatorIssue]
        rate = float(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
        unit = stream.time_base
        if not timed or unit is None:
            shown, unit = list(range(len(shown))), 1 / Fraction(rate).limit_denominator(1001)
        keys = {0: shown[0]}
        if timed and seen.complete and _may_seek(container, stream):
            number = {pts: i for i, pts in enumerate(shown)}
            keys |= {number[pts]: seek for pts, seek in sorted(seen.keys.items()) if pts in number}
        matrix = display_matrix(first)
        height, width = (first.height, first.width) if matrix[0] else (first.width, first.height)
        return VideoIndex(
            pts=tuple(shown),
            time_base=unit,
            keys=tuple(keys),
            seeks=tuple(keys.values()),
            fps=_mean_rate(shown, unit, rate),
            height=height,
            width=width,
            matrix=matrix,
            stream=stream.index,
            timed=timed,
        )


def _walk(path: Path, container: InputContainer, stream: VideoStream, by_decoding: bool) -> _Pass:
    by_dts = container.format.name in ("mpegts", "flv")
    seen = _Pass([], {}, True, 0, [], None)
    try:
        for packet in container.demux(stream):
            if packet.size:
                seen.count += 1
                seen.complete &= packet.pts is not None
                if packet.is_corrupt:
                    raise BadVideo(f"{path} is truncated: packet {seen.count} of its video is incomplete.")
                if packet.pts is not None and not packet.is_discard:
                    seen.pts.append(packet.pts)
                    if packet.is_keyframe:
                        seen.keys[packet.pts] = packet.dts if by_dts and packet.dts is not None else packet.pts
            if by_decoding or seen.first is None:
                for frame in packet.decode():
                    seen.first = seen.first or frame
                    seen.decoded.append(frame.pts)
    except av.FFmpegError as error:
        raise BadVideo(f"{path} is damaged: frame {len(seen.decoded)} cannot be decoded ({reason(error)}).") from None
    if seen.count == 0:
        raise BadVideo(f"{path} holds no video frames.")
    _refuse_truncated(path, container, stream, seen.count)
    return seen


def _packets_are_frames(container: InputContainer, stream: VideoStream) -> bool:
    codec = stream.codec_context.name
    return codec in _ONE_FRAME_PER_PACKET and ("avi" not in container.format.name or codec in _INTRA_ONLY)


def _may_seek(container: InputContainer, stream: VideoStream) -> bool:
    formats = container.format.name.split(",")
    return not _SEEKABLE.isdisjoint(formats) or ("avi" in formats and stream.codec_context.name in _INTRA_ONLY)


def _packets_tell(seen: _Pass, first_pts: int | None) -> bool:
    """Whether the packets' timestamps are the frames': all there, distinct, and led by the first decoded frame's."""
    return seen.complete and len(set(seen.pts)) == len(seen.pts) > 0 and min(seen.pts) == first_pts


def _refuse_truncated(path: Path, container: InputContainer, stream: VideoStream, packets: int) -> None:
    """Raise BadVideo when the container's own tables promise more bytes or frames than the file has."""
    size = path.stat().st_size
    formats = container.format.name.split(",")
    ends = max((entry.pos + max(entry.size, 0) for entry in stream.index_entries), default=0)
    promised = _promised_bytes(path)
    if max(ends, promised) > size and not ("avi" in formats and packets >= stream.frames):
        raise BadVideo(f"{path} is truncated: it should have {max(ends, promised):,} bytes and has {size:,}.")
    if "gif" in formats and not _ends_with_trailer(path):
        raise BadVideo(f"{path} is truncated: the GIF has no end mark.")


def _promised_bytes(path: Path) -> int:
    """File size that a RIFF or Matroska header announces; 0 when it is open-ended or another container."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") % 0xFFFFFFFF + 8
    if head[:4] == _EBML:
        start = 4 + _vint_length(head[4]) + _vint(head, 4)
        if head[start : start + 4] == _SEGMENT:
            length, width = _vint(head, start + 4), _vint_length(head[start + 4])
            unknown = length == (1 << 7 * width) - 1
            return 0 if unknown else start + 4 + width + length
    return 0


def _vint_length(first: int) -> int:
    return 9 - first.bit_length()


def _vint(data: bytes, at: int) -> int:
    """A variable-length integer of EBML (RFC 8794, section 4) without its length mark."""
    width = _vint_length(data[at])
    return int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)


def _ends_with_trailer(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 64), os.SEEK_END)
        return file.read().rstrip(b"\0\r\n ").endswith(b";")


def _mean_rate(pts: list[int], unit: Fraction, nominal: float) -> float:
    """The header's frame rate where the timestamps agree with it to 1 %, otherwise their mean rate."""
    if len(pts) < 2:
        return nominal
    mean = (len(pts) - 1) / float((pts[-1] - pts[0]) * unit)
    return nominal if abs(mean / nominal - 1) < 0.01 else mean


def reason(error: Exception) -> str:
    """FFmpeg's own words for an error, without its number and file name."""
    return getattr(error, "strerror", None) or str(error)
