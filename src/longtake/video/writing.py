"""Writing: clips are encoded in memory, then put in place in one step, so nothing half-written is ever seen."""

import contextlib
import math
import os
import secrets
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av import AudioResampler, VideoFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from torch import Tensor

from longtake.errors import BadInput, BadOutput, UnknownName, nearest
from longtake.video.clip import Clip, to_uint8
from longtake.video.colour import ACCURATE
from longtake.video.sound import Sound, sound_frame

_BT709, _LIMITED = 1, 1
_THREADS = 4  # encoders split their work by this, so it must not depend on the machine


@dataclass(frozen=True)
class _Codec:
    pixel_format: str
    options: tuple[tuple[str, str], ...] = ()
    worst_crf: int = 51  # 0 where there is nothing to choose


_CODECS = {
    # The macroblock tree of x264 (core 165, AVX-512) reads memory that it never set, so that the same clip made
    # another file from time to time; without it, and with a fixed number of threads, it does not.
    "libx264": _Codec("yuv420p", (("preset", "medium"), ("x264-params", "mbtree=0"))),
    "libx265": _Codec("yuv420p", (("x265-params", "log-level=error"),)),
    "libvpx-vp9": _Codec("yuv420p", (("b", "0"), ("row-mt", "1")), 63),
    "libsvtav1": _Codec("yuv420p", (("preset", "8"),), 63),
    "ffv1": _Codec("bgr0", worst_crf=0),
}


def write_clip(
    clip: Clip | Tensor, path: str | Path, *, fps: float | None = None, codec: str = "libx264", crf: int = 16
) -> None:
    """Write one clip as a video file, at a constant frame rate.

    Args:
        clip: a Clip of batch 1, or a tensor (1, C, T, H, W) or (C, T, H, W) in [-1, 1]; C is 3, or 1 for grey.
        path: the suffix chooses the container (.mp4, .mkv, .mov, .webm, .avi). An existing file is replaced.
        fps: frames per second; the clip's own when None. A bare tensor needs it.
        codec: libx264, libx265, libvpx-vp9, libsvtav1 (4:2:0, bt.709 limited range, tagged so), or ffv1 (lossless
            RGB: what is read back equals ``to_uint8`` of what was written).
        crf: quality of the lossy codecs, 0 (best) to 51; 63 for VP9 and AV1.

    4:2:0 codecs need even sizes: an odd height or width grows by one row or column, a copy of the last one. ffv1
    keeps any size. The same clip and arguments make the same bytes.

    A clip's sound becomes the file's sound track: AAC in .mp4 and .mov, Opus in .webm, PCM of 16 bits in .mkv and .avi.

    Raises:
        BadInput: a clip that cannot be one video. UnknownName: another codec. BadOutput: the container does not take
        the codec, missing folder, no permission, disk full; nothing is left behind.
    """
    if isinstance(clip, Tensor):
        if fps is None:
            raise BadInput("a bare tensor does not know its frame rate; give write_clip fps=.")
        clip = Clip(clip if clip.ndim == 5 else clip[None], fps)
    rate = clip.fps if fps is None else fps
    if clip.pixels.shape[0] != 1 or clip.pixels.shape[1] not in (1, 3):
        raise BadInput(f"one file takes one RGB or grey clip; this batch has shape {tuple(clip.pixels.shape)}.")
    if not (math.isfinite(rate) and rate > 0):
        raise BadInput(f"fps is {rate}; it must be a number above zero.")
    if codec not in _CODECS:
        raise UnknownName(f"no codec is called '{codec}'.{nearest(codec, _CODECS)}")
    if _CODECS[codec].worst_crf and not 0 <= crf <= _CODECS[codec].worst_crf:
        raise BadInput(f"crf is {crf}; for {codec} it is 0 (best) to {_CODECS[codec].worst_crf}.")
    path = Path(path)
    check_folder(path)
    try:
        data = _encode(clip.pixels[0], Fraction(rate).limit_denominator(1001), path.suffix, codec, crf, clip.sound)
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadOutput(f"{path} cannot be written as {codec} in a '{path.suffix}' file: {why}.") from None
    write_bytes(path, data)


def _encode(pixels: Tensor, rate: Fraction, suffix: str, codec: str, crf: int, sound: Sound | None) -> bytes:
    settings = _CODECS[codec]
    options = dict(settings.options) | ({"crf": str(crf)} if settings.worst_crf else {})
    _, _, height, width = pixels.shape
    if settings.pixel_format == "yuv420p":
        height, width = height + height % 2, width + width % 2
    buffer = BytesIO()
    # Matroska marks a file and its tracks with random numbers, unless it is told to leave them out.
    marks = {"fflags": "+bitexact"} if suffix.lower() in (".mkv", ".webm") else {}
    with av.open(buffer, "w", format=_container_format(suffix), container_options=marks) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, settings.pixel_format
        stream.thread_type, stream.thread_count = "FRAME", _THREADS
        if settings.pixel_format == "yuv420p":
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
        track = None if sound is None else _sound_track(container, suffix, sound.rate)
        reformatter = VideoReformatter()
        for number in range(pixels.shape[1]):
            rgb = to_uint8(pixels[:, number : number + 1].expand(3, -1, -1, -1))[0].cpu().numpy()
            rgb = np.pad(rgb, ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0)), mode="edge")
            frame = _to_codec(VideoFrame.from_ndarray(rgb, format="rgb24"), settings.pixel_format, reformatter)
            frame.pts = number
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and track is not None:
            context = track.codec_context
            blocks = AudioResampler(
                format=context.format.name, layout="mono", rate=sound.rate, frame_size=context.frame_size or None
            )
            samples = sound.samples.cpu().numpy()
            for frame in [*blocks.resample(sound_frame(samples, sound.rate)), *blocks.resample(None), None]:
                container.mux(track.encode(frame))
    return buffer.getvalue()


def _sound_track(container: OutputContainer, suffix: str, rate: int) -> AudioStream:
    codec = _SOUND_CODECS.get(suffix.lower(), "pcm_s16le")
    track = container.add_stream(codec, rate=rate, layout="mono")
    assert isinstance(track, AudioStream)
    if codec == "aac":
        track.bit_rate = _AAC_BIT_RATE
    return track


def _to_codec(frame: VideoFrame, pixel_format: str, reformatter: VideoReformatter) -> VideoFrame:
    if pixel_format == "bgr0":
        return reformatter.reformat(frame, format=pixel_format)
    return reformatter.reformat(
        frame,
        format=pixel_format,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=ACCURATE,
        threads=1,
    )


_SOUND_CODECS = {".mp4": "aac", ".m4v": "aac", ".mov": "aac", ".webm": "libopus"}
_AAC_BIT_RATE = 96_000
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}


def _container_format(suffix: str) -> str:
    if suffix.lower() not in _CONTAINERS:
        raise ValueError(f"the suffix must be one of {', '.join(_CONTAINERS)}")
    return _CONTAINERS[suffix.lower()]


def check_folder(path: Path) -> None:
    """Raise BadOutput when ``path`` cannot be a file in an existing, writable folder; cheap, so call it first."""
    if not path.parent.is_dir():
        raise BadOutput(f"{path} cannot be written: the folder {path.parent} does not exist.")
    if path.is_dir():
        raise BadOutput(f"{path} cannot be written: it is a folder.")
    if not os.access(path.parent, os.W_OK):
        raise BadOutput(f"{path} cannot be written: no permission to write in {path.parent}.")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file under a temporary name beside it, then rename: ``path`` is the old file or the new one.

    Raises BadOutput for a missing folder, a full disk or no permission, with nothing left behind.
    """
    path = Path(path)
    check_folder(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise BadOutput(f"{path} cannot be written: {error.strerror or error}.") from None
        raise
