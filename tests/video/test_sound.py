"""Sound: read from files of any rate and number of channels, written beside pictures."""

import wave

import numpy as np
import pytest
import torch

from longtake.errors import BadInput, BadSound
from longtake.video import Clip, Sound, read_clip, read_sound, write_clip


def tone(frequency, rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def write_wav(path, channels, rate):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack(channels, 1) * 32767).round().astype("<i2").tobytes())
    return path


def clicks(rate=16_000, at=(0.25, 0.75), seconds=1.0):
    """Short bursts at these seconds."""
    samples = torch.zeros(int(rate * seconds))
    for second in at:
        samples[int(second * rate) : int(second * rate) + 64] = 0.5 * torch.cos(torch.arange(64) * 0.9)
    return Sound(samples, rate)


def test_channels_are_averaged_and_nothing_else_happens_at_its_own_rate(tmp_path):
    left, right = tone(440, 16_000), tone(700, 16_000)
    sound = read_sound(write_wav(tmp_path / "two.wav", [left, right], 16_000))
    assert sound.rate == 16_000 and sound.samples.dtype == torch.float32 and sound.seconds == 0.5
    np.testing.assert_allclose(sound.samples.numpy(), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_ours_in_time_and_pitch(rate, tmp_path):
    sound = read_sound(write_wav(tmp_path / "one.wav", [tone(440, rate)], rate))
    assert abs(len(sound.samples) - 8_000) <= 1
    inner = slice(500, 7500)  # the resampler's filter reaches over the ends
    np.testing.assert_allclose(sound.samples[inner].numpy(), tone(440, 16_000)[inner], atol=0.01)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "ffv1"), (".webm", "libvpx-vp9")])
def test_a_clip_is_written_with_its_sound_in_step(suffix, codec, tmp_path):
    path, sound = tmp_path / f"clip{suffix}", clicks()
    write_clip(Clip(torch.zeros(1, 3, 16, 16, 16), 16.0, sound=sound), path, codec=codec)
    assert read_clip(path).pixels.shape == (1, 3, 16, 16, 16)
    again = read_sound(path)
    assert abs(len(again.samples) - 16_000) <= 160
    for second in (0.25, 0.75):  # loudest within 10 ms of where it was
        around = again.samples[int((second - 0.2) * 16_000) : int((second + 0.2) * 16_000)].abs()
        assert abs(around.argmax().item() - 3200) <= 160
    assert again.samples[6000:11_000].abs().max() < 0.05


def test_the_same_clip_with_sound_makes_the_same_bytes(tmp_path):
    clip = Clip(torch.zeros(1, 3, 8, 16, 16), 8.0, sound=clicks())
    for name in ("a.mp4", "b.mp4"):
        write_clip(clip, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_what_holds_no_sound_is_named(tmp_path):
    write_clip(Clip(torch.zeros(1, 3, 8, 16, 16), 8.0), tmp_path / "silent.mp4")
    (tmp_path / "text.wav").write_text("no sound at all")
    for name, words in (("silent.mp4", "no sound track"), ("text.wav", "cannot be read"), ("gone.wav", "not exist")):
        with pytest.raises(BadSound, match=words):
            read_sound(tmp_path / name)


def test_what_is_no_sound_is_refused():
    for samples, rate in ((torch.zeros(2, 8), 16_000), (torch.zeros(0), 16_000), (torch.zeros(8), 0)):
        with pytest.raises(BadInput):
            Sound(samples, rate)
    assert clicks().first(0.5).seconds == 0.5
