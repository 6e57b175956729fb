"""Videos made on the spot: each frame carries its own number as black and white bars."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

HEIGHT, WIDTH, BITS = 48, 64, 8


def draw(number: int) -> np.ndarray:
    """uint8 (48, 64, 3): eight bars of 8 columns spell ``number``, the lowest bit on the left."""
    bits = np.array([number >> b & 1 for b in range(BITS)])
    return np.broadcast_to((40 + 180 * bits).repeat(WIDTH // BITS)[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """The number drawn on an upright (48, 64, 3) frame."""
    centres = np.asarray(frame)[8:40].mean((0, 2)).reshape(BITS, -1)[:, 2:6].mean(1)
    return sum(1 << b for b, level in enumerate(centres) if level > 130)


def encode(
    path: Path,
    codec: str = "libx264",
    frames: int | Sequence[np.ndarray] = 40,
    *,
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rate: int | Fraction = 25,
    options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    b_frames: int | None = None,
    rotate: tuple[float, bool, bool] | None = None,
    audio: bool = False,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode numbered frames (or the given RGB or ready-made frames) and return ``path``."""
    pictures = [draw(i) for i in range(frames)] if isinstance(frames, int) else frames
    time_base = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = pixel_format, time_base, time_base
        sound = container.add_stream("aac", rate=16000) if audio else None
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if codec in ("mpeg4", "mpeg2video"):
            stream.bit_rate = 2_000_000
        if rotate:
            stream.set_display_rotation(rotate[0], hflip=rotate[1], vflip=rotate[2])
        for i, picture in enumerate(pictures):
            frame = picture
            if isinstance(picture, np.ndarray):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format=pixel_format)
            if i == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = (i if pts is None else pts[i]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            write_tone(container, sound)
    return path


def write_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float = 0.5) -> None:
    samples = (np.sin(np.arange(int(16000 * seconds)) / 10) * 8000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=16000)
    for piece in resampler.resample(frame):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


@pytest.fixture(name="draw")
def _draw() -> Callable[[int], np.ndarray]:
    return draw


@pytest.fixture(name="number_of")
def _number_of() -> Callable[[np.ndarray], int]:
    return number_of


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video("name.mp4", codec, frames, ...)`` -> path of an encoded file; see ``encode``."""

    def make(name: str, *args: object, **kwargs: object) -> Path:
        return encode(tmp_path / name, *args, **kwargs)

    return make
