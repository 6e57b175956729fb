"""Clips to tokens and back."""

import pytest
import torch

from longtake.layers.patching import patchify, unpatchify


@pytest.mark.parametrize("patch", [(1, 1, 1), (1, 2, 2), (2, 3, 1)])
def test_there_and_back(patch):
    clip = torch.randn(2, 3, 4, 6, 4)
    grid = tuple(n // p for n, p in zip(clip.shape[2:], patch, strict=True))
    tokens = patchify(clip, patch)
    assert tokens.shape == (2, grid[0] * grid[1] * grid[2], 3 * patch[0] * patch[1] * patch[2])
    assert torch.equal(unpatchify(tokens, grid, patch), clip)


def test_tokens_run_frames_then_rows_then_columns():
    clip = torch.arange(2 * 3 * 4).view(1, 1, 2, 3, 4)
    assert torch.equal(patchify(clip, (1, 1, 1))[0, :, 0], torch.arange(24))
    first = patchify(clip, (2, 1, 2))[0, 0]
    assert torch.equal(first, torch.tensor([0, 1, 12, 13]))


def test_a_patch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        patchify(torch.zeros(1, 1, 2, 3, 4), (1, 2, 2))
