"""Sound as a one-channel video: for every frame of a clip the log-magnitude spectrogram of what is heard while it is shown.

    spectrum   STFT of sound at 16 kHz: Hann window of 512 samples (32 ms), hop of 64 (4 ms), centred, silence around
    power      |X|^2 over that of a sine of amplitude 1; 256 bins of 31.25 Hz (the one of 0 Hz left out)
    rows       64, the lowest frequencies first: means over 4 bins, 125 Hz each, up to 8 kHz
    columns    16 of each frame: read, by linear interpolation, at the middles of 16 equal parts of its time
    scale      decibels, -80 to 0 -> -1 to 1; what is fainter is -1

64x16 values a frame in [-1, 1] are TATS's (arXiv 2204.03638); windows, hop, rows and decibels are our choice.
"""

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.video import Sound
from longtake.video.sound import RATE

ROWS, COLUMNS = 64, 16
WINDOW, HOP = 512, 64
FLOOR = -80.0
"""Decibels that count as silence."""


def spectrogram(sound: Sound, frames: int, fps: float) -> Tensor:
    """What is heard in each frame: float32 (1, T, 64, 16) in [-1, 1], as a clip without its batch.

    Args:
        sound: at 16 kHz, from the clip's first frame on. What lies behind the last frame is not looked at but for the
            reach of a window; where the sound ends earlier, silence.
        frames: T. fps: frames per second.

    Raises:
        BadInput: another rate, or no frames.
    """
    if sound.rate != RATE:
        raise BadInput(f"a sound of {sound.rate} samples a second; spectrograms are of {RATE}, read_sound resamples")
    if frames < 1 or not 0 < fps < float("inf"):
        raise BadInput(f"a spectrogram of {frames} frames at {fps} frames per second; both must be above zero")
    window = torch.hann_window(WINDOW)
    length = -(-round(frames / fps * RATE) // HOP) * HOP
    samples = sound.samples.cpu()[:length]
    samples = torch.nn.functional.pad(samples, (0, length - len(samples)))
    spectrum = torch.stft(
        samples, WINDOW, HOP, window=window, center=True, pad_mode="constant", return_complex=True
    )  # (257, length / 64 + 1)
    power = spectrum.abs().square() / (window.sum() / 2) ** 2
    rows = power[1:].unflatten(0, (ROWS, -1)).mean(1)
    level = 10 * rows.clamp_min(10 ** (FLOOR / 10)).log10() / (-FLOOR / 2) + 1  # (64, steps), silence is -1

    middles = (torch.arange(frames * COLUMNS, dtype=torch.float64) + 0.5) / COLUMNS / fps * RATE / HOP
    before = middles.floor().long().clamp_max(level.shape[1] - 2)
    share = (middles - before).float()
    columns = torch.lerp(level[:, before], level[:, before + 1], share)  # (64, T * 16)
    return columns.view(ROWS, frames, COLUMNS).transpose(0, 1)[None].clamp(-1.0, 1.0).contiguous()
