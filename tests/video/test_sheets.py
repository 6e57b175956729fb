"""Contact sheets and strips show the right frames in the right places."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.errors import BadInput, BadOutput
from longtake.video import Clip, contact_sheet, read_clip, write_strip


def ramp(batch=1, frames=5, height=6, width=8):
    """Frame t of clip b is one flat colour that tells both."""
    pixels = torch.zeros(batch, 3, frames, height, width)
    for b in range(batch):
        for t in range(frames):
            pixels[b, :, t] = torch.tensor([40 * t, 60 * b, 200])[:, None, None] / 127.5 - 1
    return pixels


def test_rows_are_clips_and_columns_are_frames():
    sheet = np.asarray(contact_sheet(Clip(ramp(batch=2), 8), gap=2))
    assert sheet.shape == (6 * 2 + 2, 8 * 5 + 2 * 4, 3)
    for b in range(2):
        for t in range(5):
            assert (sheet[b * 8 : b * 8 + 6, t * 10 : t * 10 + 8] == [40 * t, 60 * b, 200]).all()
    assert (sheet[6:8] == 255).all()


def test_few_columns_keep_the_first_and_the_last_frame():
    sheet = np.asarray(contact_sheet(ramp(), columns=3, gap=0))
    assert sheet[0, ::8, 0].tolist() == [0, 80, 160]


def test_clips_of_different_sizes_and_captions(tmp_path):
    sheet = contact_sheet([ramp(), ramp(frames=2, height=10)], tmp_path / "s.png", captions=["a", "b " * 400], gap=2)
    assert sheet.size == (48, 14 + 6 + 2 + 14 + 10)
    assert Image.open(tmp_path / "s.png").size == sheet.size
    assert (np.asarray(sheet)[:14] < 128).any(), "a caption leaves ink"


def test_frames_are_scaled_to_a_height():
    assert contact_sheet(ramp(), height=12, gap=0).size == (5 * 16, 12)


def test_a_gif_plays_at_the_right_speed(tmp_path):
    write_strip(Clip(ramp(frames=6), 8), tmp_path / "a.gif")
    clip = read_clip(tmp_path / "a.gif")
    assert clip.frames == 6
    # GIF counts in 1/100 s: 0.125 s is 0.12 or 0.13, and the sum must not drift
    assert np.allclose(clip.times, np.arange(6) / 8, atol=6e-3)
    assert ((clip.pixels[0, 0, :, 3, 3] + 1) * 127.5).round().tolist() == pytest.approx(
        [0, 40, 80, 120, 160, 200], abs=2
    )


def test_a_webp_holds_all_frames(tmp_path):
    write_strip(ramp()[0], tmp_path / "a.webp", fps=10)
    with Image.open(tmp_path / "a.webp") as image:
        assert image.n_frames == 5
        image.seek(3)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - [120, 0, 200]).max() <= 12


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_still_strip_shows_frames_side_by_side(tmp_path, name):
    write_strip(Clip(ramp(), 8), tmp_path / name, columns=3)
    strip = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
    assert strip.shape == (6, 3 * 8 + 2 * 2, 3)
    assert np.abs(strip[3, 4::10, 0] - [0, 80, 160]).max() <= 12


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(BadInput, match="batch has 2"):
        write_strip(Clip(ramp(batch=2), 8), tmp_path / "a.gif")
    with pytest.raises(BadInput, match="strip is"):
        write_strip(Clip(ramp(), 8), tmp_path / "a.mp4")
    with pytest.raises(BadInput, match="captions"):
        contact_sheet(ramp(), captions=["a", "b"])
    with pytest.raises(BadInput, match="at least one"):
        contact_sheet([])
    with pytest.raises(BadOutput):
        write_strip(Clip(ramp(), 8), tmp_path / "none" / "a.gif")
    with pytest.raises(BadOutput):
        contact_sheet(ramp(), tmp_path / "none" / "a.png")
    assert os.listdir(tmp_path) == []
