"""Absolute positions and timestep features."""

import math

import torch

from longtake.layers.positions import FactorisedPositions, timestep_features


def filled(size, width=3):
    positions = FactorisedPositions(size, width)
    for table in positions.parameters():
        torch.nn.init.normal_(table)
    return positions


def test_zero_at_the_start():
    assert not FactorisedPositions((2, 3, 4), 5)((2, 3, 4)).any()


def test_a_token_gets_the_sum_of_its_three_rows():
    positions = filled((3, 4, 5))
    out = positions((2, 4, 5)).view(2, 4, 5, 3)
    torch.testing.assert_close(out[1, 2, 4], positions.frames[1] + positions.height[2] + positions.width[4])


def test_a_longer_grid_stretches_the_table_and_keeps_its_ends():
    positions = filled((2, 3, 4))
    short, long = positions((2, 3, 4)).view(2, 3, 4, 3), positions((5, 3, 4)).view(5, 3, 4, 3)
    torch.testing.assert_close(long[0], short[0])
    torch.testing.assert_close(long[4], short[1])
    torch.testing.assert_close(long[2], short.mean(0))  # half way between the two rows


def test_a_shorter_grid_takes_the_first_rows():
    positions = filled((5, 6, 7))
    torch.testing.assert_close(positions((2, 3, 4)).view(2, 3, 4, 3), positions((5, 6, 7)).view(5, 6, 7, 3)[:2, :3, :4])


def test_timestep_features_are_cosines_then_sines():
    out = timestep_features(torch.tensor([0.0, 250.0]), 8)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(out[1, 1].item(), math.cos(250 / 10), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out[1, 5].item(), math.sin(250 / 10), rtol=1e-4, atol=1e-4)
