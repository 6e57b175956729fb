"""Sound that a user gives: a file, a `Sound` or a spectrogram, checked against the clip that is made to it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from longtake.data.spectrogram import spectrogram
from longtake.errors import BadInput
from longtake.pipelines.records import Source, file_hash
from longtake.video import Sound, read_sound

Audio = str | Path | Sound | Tensor
"""A sound file or a video with sound, a Sound at 16 kHz, or a spectrogram (1, 1, T, rows, columns) in [-1, 1]."""


@dataclass(frozen=True)
class GivenSound:
    """`spectrogram` (1, 1, T, rows, columns) in [-1, 1], where it came from, and the `sound` that the clip is to carry, as
    long as the clip; None where only the spectrogram was given."""

    spectrogram: Tensor
    source: Source
    sound: Sound | None = None


def given_sound(audio: Audio, frames: int, fps: float, *, reach: int, step: int = 1) -> GivenSound:
    """Bring a sound to the form in which a clip of `frames` frames at `fps` is made to it.

    Args:
        reach: frames that are looked at, at least `frames`; behind the sound's end they are silent.
        step: the clip's frames come in multiples of it; for the remedy.

    Raises:
        BadSound: a file that is none. BadInput: a sound shorter than the clip, a spectrogram of another form or range.
    """
    if isinstance(audio, Tensor):
        return _given_spectrogram(audio, frames, step)
    if isinstance(audio, Sound):
        sound, source, name = audio, Source(None, _hash(audio.samples)), "audio"
    else:
        sound, name = read_sound(audio), f"audio '{audio}'"
        source = Source(str(Path(audio).absolute()), file_hash(audio))
    if sound.seconds * fps < frames - 0.5:  # encoders and resamplers round the end off
        lasts = f"lasts {sound.seconds:.2f} s, and {frames} frames at {fps:g} frames per second {frames / fps:.2f} s"
        raise BadInput(f"{name} {lasts}: {_remedy(int(sound.seconds * fps + 0.5), step)}")
    return GivenSound(spectrogram(sound, reach, fps)[None], source, sound.first(frames / fps))


def _given_spectrogram(heard: Tensor, frames: int, step: int) -> GivenSound:
    if heard.ndim != 5 or heard.shape[:2] != (1, 1):
        raise BadInput(f"audio of shape {tuple(heard.shape)}; expected a spectrogram (1, 1, frames, rows, columns)")
    if not heard.isfinite().all() or heard.abs().max() > 1.001:
        raise BadInput("audio has values outside [-1, 1]: -1 is silence")
    if heard.shape[2] < frames:
        raise BadInput(f"audio has {heard.shape[2]} frames, and the clip {frames}: {_remedy(heard.shape[2], step)}")
    heard = heard.detach().float().cpu()
    return GivenSound(heard, Source(None, _hash(heard)))


def _remedy(frames: int, step: int) -> str:
    most = frames // step * step
    return f"ask for at most {most} frames, or give a longer sound" if most else "give a longer sound"


def _hash(values: Tensor) -> str:
    return hashlib.sha256(values.float().cpu().contiguous().numpy().tobytes()).hexdigest()
