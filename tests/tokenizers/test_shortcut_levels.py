"""The parameter-free shortcuts against small cases by hand, and against each other."""

import pytest
import torch

from longtake.tokenizers.shortcut_levels import fold_mean, repeat_unfold


def test_fold_mean_averages_squares_of_pixels():
    x = torch.arange(16.0).view(1, 1, 1, 4, 4)
    # 4 pixels of a square into 1 channel
    assert fold_mean(x, 1, 1, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    # into 2 channels: upper and lower half of each square
    assert fold_mean(x, 2, 1, 2)[0, :, 0, 0, 0].tolist() == [0.5, 4.5]


def test_fold_mean_pairs_frame_0_with_zeros():
    x = torch.tensor([8.0, 1.0, 3.0]).view(1, 1, 3, 1, 1)
    assert fold_mean(x, 1, 2, 1).flatten().tolist() == [4.0, 2.0]
    assert fold_mean(x, 2, 2, 1)[0, :, :, 0, 0].tolist() == [[0.0, 1.0], [8.0, 3.0]]


def test_repeat_unfold_spreads_channels_over_space_and_time():
    x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
    wide = repeat_unfold(x, 1, 2, 2, first=False)  # 2 channels -> 1 channel, 2 frames of 2x2
    assert wide.shape == (1, 1, 2, 2, 2)
    assert wide[0, 0, 0].unique().tolist() == [1.0] and wide[0, 0, 1].unique().tolist() == [2.0]
    assert torch.equal(repeat_unfold(x, 1, 2, 2, first=True), wide[:, :, 1:])


@pytest.mark.parametrize(("width", "time", "space"), [(4, 1, 2), (8, 2, 2), (4, 2, 1), (16, 2, 2)])
def test_folding_what_was_unfolded_gives_it_back(width, time, space):
    x = torch.randn(2, width, 3, 2, 2)
    there = repeat_unfold(x, 4, time, space, first=False)
    assert there.shape == (2, 4, 3 * time, 2 * space, 2 * space)
    torch.testing.assert_close(fold_mean(there, width, time, space), x)
