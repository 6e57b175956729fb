"""Preparation: each switch does what it says, against plain loops, Pillow and torch."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.evaluation.preparation import prepare, through_jpeg, through_mp4, to_bytes
from longtake.evaluation.protocol import Side


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 5, 6, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, size=(20, 30), mode="bicubic").clamp(0, 1)
    return (soft * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def test_as_they_are(frames: torch.Tensor) -> None:
    out = prepare(frames, Side())
    assert out.shape == (3, 3, 20, 30) and torch.equal(out, frames.permute(3, 0, 1, 2))
    assert torch.equal(prepare(frames, Side(), mirrored=True), out.flip(-1))


def test_lanczos_after_a_square_crop_is_pillows(frames: torch.Tensor) -> None:
    side = Side(height=8, width=8, crop="square", resize="lanczos")
    for frame, out in zip(frames, prepare(frames, side).permute(1, 2, 3, 0), strict=True):
        picture = Image.fromarray(frame[:, 5:25].numpy()).resize((8, 8), Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(picture), out.numpy())


def test_cover_and_crop_keeps_the_shape_of_things_and_stretching_does_not(frames: torch.Tensor) -> None:
    cover = prepare(frames, Side(height=10, width=10))
    whole = prepare(frames, Side(height=10, width=15))  # the same scale, nothing cropped
    assert torch.equal(cover, whole[..., 2:12])
    stretched = prepare(frames, Side(height=10, width=10, crop="none"))
    assert (stretched.float() - cover.float()).abs().mean() > 2


def test_antialias_and_filter_are_torchs(frames: torch.Tensor) -> None:
    pixels = frames.permute(0, 3, 1, 2).float()
    for mode, antialias in (("bilinear", False), ("bilinear", True), ("bicubic", True)):
        wanted = torch.nn.functional.interpolate(pixels, size=(10, 15), mode=mode, antialias=antialias)
        found = prepare(frames, Side(height=10, width=15, resize=mode, antialias=antialias)).permute(1, 0, 2, 3)
        assert torch.equal(found, wanted.clamp(0, 255).round().to(torch.uint8))


def test_rounding() -> None:
    levels = torch.tensor([-3.0, 0.6, 1.5, 254.7, 300.0])
    assert to_bytes(levels, "nearest").tolist() == [0, 1, 2, 255, 255]
    assert to_bytes(levels, "truncate").tolist() == [0, 0, 1, 254, 255]


def test_truncated_resizing_is_darker(frames: torch.Tensor) -> None:
    nearest, cut = (prepare(frames, Side(height=7, width=7, rounding=r)).float() for r in ("nearest", "truncate"))
    assert (nearest - cut).min() >= 0 and (nearest - cut).mean() == pytest.approx(0.5, abs=0.15)


def test_jpeg_is_pillows_at_that_quality(frames: torch.Tensor) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frames[1].numpy()).save(buffer, "JPEG", quality=75)
    assert np.array_equal(np.asarray(Image.open(buffer)), through_jpeg(frames, 75)[1].numpy())
    passed = prepare(frames, Side(jpeg=75))
    assert torch.equal(passed.permute(1, 2, 3, 0), through_jpeg(frames, 75))
    assert torch.equal(prepare(frames, Side(jpeg=75), jpeg=True), prepare(frames, Side()))  # was JPEG before


def test_mp4_loses_little_at_a_low_crf_and_more_at_a_high_one(frames: torch.Tensor) -> None:
    odd = frames[:, :19, :29, :1].repeat(1, 1, 1, 3)  # grey: H.264 halves the resolution of colours at any crf
    errors = []
    for crf in (5, 45):
        out = through_mp4(odd, crf)
        assert out.shape == odd.shape
        errors.append((out.float() - odd.float()).abs().mean())
    assert 0 < errors[0] < 2 and 2 * errors[0] < errors[1]
    side = Side(mp4=45)
    assert torch.equal(prepare(odd, side, mp4=True), prepare(odd, Side()))  # was an .mp4 before
    assert not torch.equal(prepare(odd, side), prepare(odd, Side()))


def test_compression_comes_in_its_order(frames: torch.Tensor) -> None:
    side = Side(mp4=30, height=10, width=15, jpeg=40)
    by_hand = through_jpeg(prepare(through_mp4(frames, 30), Side(height=10, width=15)).permute(1, 2, 3, 0), 40)
    assert torch.equal(prepare(frames, side).permute(1, 2, 3, 0), by_hand)
