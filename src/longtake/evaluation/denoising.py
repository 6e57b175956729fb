"""How well a network denoises held-out clips, noise level by noise level."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longtake.diffusion.flow import TIMESTEPS

BATCH = 16  # clips at a time


@torch.no_grad()
def velocity_errors(
    network: Any, latents: Tensor, levels: Sequence[float], labels: Tensor, seed: int = 0
) -> list[float]:
    """Mean squared error of the velocity at each noise level, on the same noise for every network.

    Args:
        network: a class-conditional one that predicts velocities, in eval mode, on any device.
        latents: (B, C, T, H, W), clean. labels: (B,), their classes.
        levels: sigma in [0, 1]. seed: of the noise.
    """
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    device, found = next(network.parameters(), latents).device, []  # one without weights works where the latents are
    latents, noise, labels = latents.to(device), noise.to(device), labels.to(device)
    for level in levels:
        total = 0.0
        for x, e, of_class in zip(latents.split(BATCH), noise.split(BATCH), labels.split(BATCH), strict=True):
            made = network(
                torch.lerp(x, e, level), torch.full((len(x),), level * TIMESTEPS, device=device), labels=of_class
            )
            total += float((made - (e - x)).square().mean()) * len(x) / len(latents)
        found.append(total)
    return found
