"""Sound: one channel of samples with their rate, read from any file that FFmpeg decodes."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av import AudioFrame, AudioResampler
from torch import Tensor

from longtake.errors import BadInput, BadSound
from longtake.video.index import reason

RATE = 16_000
"""Samples per second of every sound unless asked otherwise."""


@dataclass(frozen=True, eq=False)
class Sound:
    """One channel of sound.

    Attributes:
        samples: float32 (N,) in [-1, 1].
        rate: samples per second.

    Raises:
        BadInput: another rank, another kind of number, no samples, or an impossible rate.
    """

    samples: Tensor
    rate: int = RATE

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or not len(self.samples) or self.samples.dtype != torch.float32:
            raise BadInput(
                f"a sound holds float32 samples (N,); these are {self.samples.dtype} {tuple(self.samples.shape)}"
            )
        if isinstance(self.rate, bool) or not isinstance(self.rate, int) or self.rate < 1:
            raise BadInput(f"a sound of rate {self.rate!r}; expected samples per second, a whole number above zero")

    @property
    def seconds(self) -> float:
        """Playing time."""
        return len(self.samples) / self.rate

    def first(self, seconds: float) -> "Sound":
        """The first `seconds` of it, to the nearest sample; all of it where it is shorter."""
        return Sound(self.samples[: max(1, round(seconds * self.rate))], self.rate)


def read_sound(path: str | Path, *, rate: int = RATE) -> Sound:
    """Read the sound of a file, or of a video's first sound track: the mean of its channels, resampled.

    Args:
        path: .wav, .mp3, .flac, .mp4 and whatever else FFmpeg decodes.
        rate: samples per second of what is returned.

    Raises:
        BadSound: no such file, no sound in it, or one that cannot be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise BadSound(f"{path} does not exist or is no file; give a sound file, such as a .wav.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise BadSound(f"{path} has no sound track.")
            stream = container.streams.audio[0]
            to_float = AudioResampler(format="fltp")
            pieces, own = [], rate
            for frame in container.decode(stream):
                own = frame.sample_rate
                pieces += [_mean(part) for part in to_float.resample(frame)]
            told, unit = stream.duration, stream.time_base
            length = None if told is None or unit is None else round(told * unit * own)
    except av.FFmpegError as error:
        raise BadSound(f"{path} cannot be read as sound: {reason(error)}.") from None
    if not pieces:
        raise BadSound(f"{path} holds no sound.")
    samples = np.concatenate(pieces)[:length]  # lossy codecs fill their last block up
    return Sound(torch.from_numpy(resampled(samples, own, rate)).clamp_(-1.0, 1.0), rate)


def resampled(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    """Samples float32 (N,) at `own` a second -> (ceil(N rate / own),) at `rate` a second, by FFmpeg's resampler."""
    if own == rate:
        return samples
    resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
    made = resampler.resample(sound_frame(samples, own)) + resampler.resample(None)
    out = np.concatenate([frame.to_ndarray()[0] for frame in made] or [np.zeros(0, np.float32)])
    length = math.ceil(len(samples) * rate / own)
    return np.pad(out[:length], (0, max(0, length - len(out))))


def sound_frame(samples: np.ndarray, rate: int) -> AudioFrame:
    """Samples float32 (N,) as one frame of FFmpeg, at time 0."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def _mean(frame: AudioFrame) -> np.ndarray:
    """Float planes (channels, N) -> their mean (N,)."""
    return frame.to_ndarray().mean(0, dtype=np.float32)
