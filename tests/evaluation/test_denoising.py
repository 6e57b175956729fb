"""Held-out errors: what a known network gets wrong."""

import pytest
import torch
from torch import nn

from longtake.evaluation.denoising import velocity_errors


class Guess(nn.Module):
    """Says zero, or the class's number."""

    def __init__(self, by_class):
        super().__init__()
        self.by_class, self.timesteps = by_class, []

    def forward(self, x, timestep, labels):
        self.timesteps.append(float(timestep[0]))
        return torch.zeros_like(x) + (labels.view(-1, 1, 1, 1, 1) if self.by_class else 0)


def test_errors_are_means_over_all_clips_at_each_level():
    latents = torch.randn(20, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(20) % 3
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7))
    network = Guess(False)
    found = velocity_errors(network, latents, [0.25, 0.75], labels, seed=7)
    assert found == pytest.approx([float((noise - latents).square().mean())] * 2, rel=1e-5)
    assert network.timesteps == [250.0, 250.0, 750.0, 750.0]
    by_class = velocity_errors(Guess(True), latents, [0.5], labels, seed=7)
    wanted = (labels.view(-1, 1, 1, 1, 1) - (noise - latents)).square().mean()
    assert by_class == pytest.approx([float(wanted)], rel=1e-5)
