"""Spectrograms against closed forms: where a sine, a click and silence must be."""

import pytest
import torch

from longtake.data.spectrogram import COLUMNS, ROWS, spectrogram
from longtake.errors import BadInput
from longtake.video import Sound

RATE = 16_000


def sine(frequency, seconds=1.0, amplitude=1.0):
    return Sound(amplitude * torch.sin(2 * torch.pi * frequency * torch.arange(int(seconds * RATE)) / RATE))


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 4700.0, 7900.0])
def test_a_sine_is_in_the_row_of_its_frequency(frequency):
    heard = spectrogram(sine(frequency), 8, 8.0)
    assert heard.shape == (1, 8, ROWS, COLUMNS)
    middle = heard[0, 2:6]
    assert (
        middle.argmax(1) == int((frequency - 15.625) // 125)
    ).all()  # row r: bins of 125 r + 31.25 ... 125 r + 125 Hz
    away = torch.arange(ROWS).sub(frequency / 125).abs() > 2
    assert middle[:, away].max() < -0.4


def test_ten_decibels_are_a_quarter_and_silence_is_the_bottom():
    loud, faint = (spectrogram(sine(1000.0, amplitude=a), 8, 8.0)[0, 2:6].amax() for a in (1.0, 10**-0.5))
    assert loud > 0.8 and (loud - faint).item() == pytest.approx(0.25, abs=1e-3)
    assert (spectrogram(Sound(torch.zeros(RATE)), 8, 8.0) == -1).all()


@pytest.mark.parametrize("fps", [8.0, 12.0, 30.0])
def test_a_click_is_in_the_column_of_its_time(fps):
    frames, second = int(fps), 0.6
    samples = torch.zeros(RATE)
    samples[int(second * RATE)] = 1.0
    heard = spectrogram(Sound(samples), frames, fps)[0].mean(1).flatten()  # (T * 16,) in order of time
    loudest = (heard > heard.max() - 1e-3).nonzero().float().mean().item() + 0.5
    assert abs(loudest / COLUMNS / fps - second) < 0.004
    assert heard[: int((second - 0.03) * fps * COLUMNS)].max() == -1


def test_frames_behind_the_end_of_a_sound_are_silent_and_what_is_behind_the_clip_is_not_heard():
    heard = spectrogram(sine(1000.0, 0.5), 16, 16.0)
    assert heard[0, 9:].max() == -1 and heard[0, :7].amax(1).min() > 0.5
    longer = spectrogram(sine(1000.0, 3.0), 8, 8.0)
    torch.testing.assert_close(longer, spectrogram(sine(1000.0, 1.0), 8, 8.0))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(BadInput, match="8000 samples a second"):
        spectrogram(Sound(torch.zeros(100), 8000), 4, 8.0)
    with pytest.raises(BadInput, match="0 frames"):
        spectrogram(Sound(torch.zeros(100)), 0, 8.0)
