"""A 3-D patch discriminator for the adversarial stage of a tokenizer's training, with hinge losses.

Each output judges one patch of a few frames (PatchGAN, arXiv 1611.07004, with time as the third axis); the hinge form
is that of arXiv 1705.02894. Off by default: `TokenizerLoss(gan=0)`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Clip (B, C, T, H, W) in [-1, 1] -> logits (B, 1, T'', H'', W''), high where a patch looks real.

    Args:
        in_channels: channels of a pixel.
        width: channels of the first level, doubled at each next one up to 8 times.
        levels: strided convolutions. Each halves height and width, and all but the first halve time.
    """

    def __init__(self, in_channels: int = 3, width: int = 32, levels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for level in range(levels):
            after = width * min(2**level, 8)
            layers.append(nn.Conv3d(before, after, 3, stride=(2 if level else 1, 2, 2), padding=1))
            if level:
                layers.append(nn.GroupNorm(max(1, after // 16), after))
            layers.append(nn.LeakyReLU(0.2))
            before = after
        layers.append(nn.Conv3d(before, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return self.layers(pixels.contiguous(memory_format=torch.channels_last_3d))


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """(mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake))) / 2; pass `fake` of a detached reconstruction."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean D(fake)."""
    return -fake.mean()
