"""The clip convention and its conversion to bytes."""

import pytest
import torch

from longtake.errors import BadInput
from longtake.video import Clip, from_uint8, to_uint8


def test_every_level_survives_the_round_trip():
    frames = torch.arange(256, dtype=torch.uint8).reshape(2, 1, 4, 32, 1).expand(2, 3, 4, 32, 3)
    pixels = from_uint8(frames)
    assert pixels.shape == (2, 3, 3, 4, 32)
    assert pixels.is_contiguous()
    assert pixels.min() == -1
    assert pixels.max() == 1
    assert torch.equal(to_uint8(pixels), frames)


def test_channels_move_and_nothing_else():
    frames = torch.randint(0, 256, (2, 5, 6, 7, 3), dtype=torch.uint8)
    pixels = from_uint8(frames)
    assert torch.allclose(pixels[1, 2, 3, 4, 5], frames[1, 3, 4, 5, 2] / 127.5 - 1)


def test_values_outside_the_range_are_clamped_and_nan_is_grey():
    pixels = torch.tensor([-7.0, 7.0, float("nan"), float("inf")]).reshape(1, 4, 1, 1)
    assert to_uint8(pixels).flatten().tolist() == [0, 255, 128, 255]


def test_clip_knows_its_size():
    clip = Clip(torch.zeros(2, 3, 16, 4, 6), 8)
    assert (clip.frames, clip.height, clip.width, clip.seconds) == (16, 4, 6, 2.0)


@pytest.mark.parametrize(
    ("pixels", "fps", "times", "word"),
    [
        (torch.zeros(3, 4, 5, 6), 8, None, "shape"),
        (torch.zeros(1, 3, 0, 5, 6), 8, None, "shape"),
        (torch.zeros(1, 3, 2, 5, 6, dtype=torch.uint8), 8, None, "uint8"),
        (torch.zeros(1, 3, 2, 5, 6), 0, None, "fps"),
        (torch.zeros(1, 3, 2, 5, 6), float("nan"), None, "fps"),
        (torch.zeros(1, 3, 2, 5, 6), 8, (0.0,), "times"),
    ],
)
def test_what_is_not_a_clip_is_refused(pixels, fps, times, word):
    with pytest.raises(BadInput, match=word):
        Clip(pixels, fps, times)
