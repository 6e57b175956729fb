"""The streamed round trip against the one-shot one, and what it says about sizes."""

import pytest
import torch

from longtake.errors import BadInput, BadOutput, BadVideo
from longtake.pipelines.loading import load_tokenizer
from longtake.pipelines.reconstructing import reconstruct
from longtake.video import Clip, read_clip, write_clip


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return load_tokenizer(tiny_folder)


def film(path, frames, height, width):
    pixels = torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    write_clip(Clip(pixels, 12.0), path, crf=1)
    return path


def test_psnr_is_that_of_the_one_shot_round_trip(tokenizer, tmp_path):
    file = film(tmp_path / "in.mp4", 9, 24, 32)
    trip = reconstruct(file, tokenizer, out=tmp_path / "out.mp4")
    clip = read_clip(file)
    with torch.no_grad():
        error = ((tokenizer.decode(tokenizer.encode(clip.pixels)) - clip.pixels) / 2).square()
    assert trip.psnr == pytest.approx(-10 * error.mean().log10().item(), abs=1e-3)
    assert trip.worst == pytest.approx(-10 * error.mean(dim=(0, 1, 3, 4)).max().log10().item(), abs=1e-3)
    assert (trip.frames, trip.height, trip.width, trip.note) == (9, 24, 32, "")
    assert trip.latents_per_pixel == pytest.approx(4 * 3 * 3 * 4 / (3 * 9 * 24 * 32))
    written = read_clip(tmp_path / "out.mp4")
    assert written.pixels.shape == (1, 3, 9, 24, 32) and written.fps == 12.0


def test_sizes_that_do_not_fit_are_lowered_and_said(tokenizer, tmp_path):
    trip = reconstruct(film(tmp_path / "in.mp4", 12, 38, 50), tokenizer)
    assert (trip.frames, trip.height, trip.width) == (9, 32, 48)
    assert trip.note == "the first 9 of 12 frames, resized and cropped from 50x38 to 48x32"
    short = reconstruct(tmp_path / "in.mp4", tokenizer, frames=6, size=(16, 16))
    assert (short.frames, short.height, short.width) == (5, 16, 16)


def test_what_cannot_be_done_is_refused(tokenizer, tmp_path):
    file = film(tmp_path / "in.mp4", 5, 16, 16)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadVideo, match=r"text\.mp4"):
        reconstruct(tmp_path / "text.mp4", tokenizer)
    with pytest.raises(BadVideo, match="8x8 and larger"):
        reconstruct(file, tokenizer, size=(4, 16))
    with pytest.raises(BadInput):
        reconstruct(file, tokenizer, frames=0)
    with pytest.raises(BadOutput, match="missing"):
        reconstruct(file, tokenizer, out=tmp_path / "missing" / "out.mp4")
