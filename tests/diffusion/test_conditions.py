"""Packing of given frames: the fold of the mask, each task, and joining batches for guidance."""

import pytest
import torch

from longtake.diffusion.conditions import (
    Conditions,
    FrameCondition,
    FrameMask,
    continuation,
    first_and_last,
    first_frame,
    given_frames,
    nothing_given,
)
from longtake.errors import BadInput, BadSize

C, T, H, W = 3, 4, 2, 5
BLACK = torch.tensor([0.5, -1.0, 2.0]).view(C, 1, 1, 1)


def mask_frames(condition):
    """The mask of one sample as rows (channel) and columns (latent frame); it must be the same everywhere in space."""
    mask = condition.mask
    assert torch.equal(mask, mask[..., :1, :1].expand_as(mask))
    return mask[0, :, :, 0, 0].int().tolist()


def test_fold_repeats_the_first_frame_and_groups_the_rest():
    given = torch.zeros(1, 9, dtype=torch.bool)
    given[0, [0, 2, 8]] = True
    folded = FrameMask(given).fold(4)
    assert folded.shape == (1, 4, 3)
    assert folded[0].T.tolist() == [[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_mask_channels_equal_the_stride_in_time(stride):
    frames = 1 + 3 * stride
    given = torch.rand(2, frames) < 0.5
    folded = FrameMask(given).fold(stride)
    assert folded.shape == (2, stride, 4)
    # what was folded unfolds: pixel frame f > 0 is channel (f-1) % stride of latent frame 1 + (f-1)//stride
    for f in range(1, frames):
        assert torch.equal(folded[:, (f - 1) % stride, 1 + (f - 1) // stride], given[:, f].float())
    assert torch.equal(folded[:, :, 0], given[:, :1].float().expand(-1, stride))


def test_both_polarities_of_a_mask_meet_in_one_type():
    given = torch.tensor([[True, False, False, False, True]])
    assert torch.equal(FrameMask.of_generated(~given).given, given)
    assert torch.equal(FrameMask(given).generated, ~given)


def test_a_mask_that_does_not_fit_the_stride_names_the_nearest_length():
    with pytest.raises(BadSize, match="nearest number is 9"):
        FrameMask(torch.zeros(1, 8, dtype=torch.bool)).fold(4)
    with pytest.raises(BadInput, match="bool"):
        FrameMask(torch.zeros(1, 5))


def test_nothing_given_is_black_with_an_empty_mask():
    condition = nothing_given((2, C, T, H, W), BLACK)
    packed = condition.pack()
    assert packed.shape == (2, C + 4, T, H, W)
    assert torch.equal(packed[:, :C], BLACK.expand(2, C, T, H, W))
    assert not packed[:, C:].any()
    empty = FrameMask(torch.zeros(2, 13, dtype=torch.bool))
    assert torch.equal(given_frames(torch.randn(2, C, T, H, W), empty, BLACK).pack(), packed)


def test_first_frame():
    image = torch.randn(2, C, 1, H, W)
    condition = first_frame(image, T, BLACK)
    assert torch.equal(condition.latents[:, :, :1], image)
    assert torch.equal(condition.latents[:, :, 1:], BLACK.expand(2, C, T - 1, H, W))
    assert mask_frames(condition) == [[1, 0, 0, 0]] * 4


def test_first_and_last_frame():
    first, last = torch.randn(2, 2, C, 1, H, W)
    condition = first_and_last(first, last, T, BLACK)
    assert torch.equal(condition.latents[:, :, :1], first)
    assert torch.equal(condition.latents[:, :, -1:], last)
    assert torch.equal(condition.latents[:, :, 1:-1], BLACK.expand(2, C, T - 2, H, W))
    assert mask_frames(condition) == [[1, 0, 0, 0]] * 3 + [[1, 0, 0, 1]]
    with pytest.raises(BadSize, match="at least 5 frames"):
        first_and_last(first, last, 1, BLACK)


@pytest.mark.parametrize("known", [1, 2, 4])
def test_continuation(known):
    leading = torch.randn(2, C, known, H, W)
    condition = continuation(leading, T, BLACK)
    assert torch.equal(condition.latents[:, :, :known], leading)
    assert torch.equal(condition.latents[:, :, known:], BLACK.expand(2, C, T - known, H, W))
    assert mask_frames(condition) == [[1] * known + [0] * (T - known)] * 4


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(BadSize, match="between 1 and 4"):
        continuation(torch.zeros(1, C, 5, H, W), T, BLACK)
    with pytest.raises(BadSize, match="image latent"):
        first_frame(torch.zeros(1, C, 2, H, W), T, BLACK)
    with pytest.raises(BadSize, match="must agree"):
        given_frames(torch.zeros(1, C, T, H, W), FrameMask(torch.zeros(1, 5, dtype=torch.bool)), BLACK)


def test_one_batch_can_mix_tasks():
    image = torch.randn(1, C, 1, H, W)
    parts = [nothing_given((1, C, T, H, W), BLACK), first_frame(image, T, BLACK)]
    stacked = FrameCondition.stack(parts).pack()
    assert torch.equal(stacked, torch.cat([part.pack() for part in parts]))


def test_joining_pads_and_masks_the_shorter_text():
    long, short = torch.randn(2, 6, 3), torch.randn(2, 4, 3)
    frames = torch.randn(2, 7, T, H, W)
    both = Conditions(short, None, frames).join(Conditions(long, None, frames))
    assert both.text.shape == (4, 6, 3) and both.frames.shape[0] == 4
    assert torch.equal(both.text[:2, :4], short) and torch.equal(both.text[2:], long)
    assert both.text_mask.tolist() == [[True] * 4 + [False] * 2] * 2 + [[True] * 6] * 2
    assert Conditions(long).join(Conditions(long)).text_mask is None
    masked = Conditions(long, torch.tensor([[True] * 2 + [False] * 4] * 2)).join(Conditions(long))
    assert masked.text_mask.tolist() == [[True] * 2 + [False] * 4] * 2 + [[True] * 6] * 2


def test_a_pooled_text_goes_with_its_clip():
    text, pooled = torch.randn(1, 2, 3), torch.randn(1, 5)
    given = Conditions(text, pooled=pooled)
    both = given.join(Conditions(text, pooled=-pooled))
    assert torch.equal(both.pooled, torch.cat([pooled, -pooled]))
    assert given.to("cpu", torch.float64).pooled.dtype == torch.float64
    with pytest.raises(BadInput, match="pooled given on one side"):
        given.join(Conditions(text))


def test_conditions_of_one_clip_serve_many():
    one = Conditions(torch.randn(1, 2, 3), torch.tensor([[True, False]]), None, torch.tensor([4]), torch.randn(1, 5))
    many = one.expand(3)
    assert many.text.shape == (3, 2, 3) and many.frames is None
    assert many.text_mask.tolist() == [[True, False]] * 3 and many.labels.tolist() == [4, 4, 4]
    assert torch.equal(many.pooled[2], one.pooled[0])


def test_frames_on_one_side_of_guidance_only_are_refused():
    text = torch.zeros(1, 2, 3)
    with pytest.raises(BadInput, match="both sides"):
        Conditions(text, None, torch.zeros(1, 7, T, H, W)).join(Conditions(text))
