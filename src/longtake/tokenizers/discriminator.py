"""Patch discriminators for the adversarial stage of a tokenizer's training, with hinge and feature-matching losses.

Each output judges one patch of a frame, or of a few frames (PatchGAN, arXiv 1611.07004, with time as a third axis); the
hinge form is that of arXiv 1705.02894, feature matching that of pix2pixHD (arXiv 1711.11585, eq. 5).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.errors import UnknownName, nearest

NORMS = ("group", "batch")


class PatchDiscriminator(nn.Module):
    """Pixels in [-1, 1] -> what every layer makes of them, the logits last, high where a patch looks real.

    Convolutions of kernel 4 and padding 2: `levels` that halve all axes, one that does not, one to the logits; leaky ReLU
    0.2 behind all but the last, and a norm before it in all but the first.

    Args:
        dims: 3 judges clips (B, C, T, H, W), 2 judges frames (N, C, H, W).
        in_channels: channels of a pixel.
        width: channels of the first layer, doubled at each next one up to 8 times.
        levels: strided convolutions.
        norm: "group", with which a clip is judged by itself, or "batch", as published.

    Raises:
        UnknownName: another norm.
    """

    def __init__(
        self, dims: int = 3, in_channels: int = 3, width: int = 64, levels: int = 3, norm: str = "group"
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UnknownName(f"no norm of a discriminator is called '{norm}'.{nearest(norm, NORMS)}")
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.format = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
        self.layers, before = nn.ModuleList(), in_channels
        for level in range(levels + 1):
            after = width * min(2**level, 8)
            layer = [convolution(before, after, 4, stride=2 if level < levels else 1, padding=2)]
            layer += [_norm(norm, dims, after)] if level else []
            self.layers.append(nn.Sequential(*layer, nn.LeakyReLU(0.2)))
            before = after
        self.layers.append(nn.Sequential(convolution(before, 1, 4, padding=2)))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """See the class. On CPUs always in float32: torch 2.13's bfloat16 gradient of the last but one 3-D weight is now
        and then 1e30 and more there, whatever the data."""
        if pixels.device.type != "cpu":
            return self._judged(pixels)
        with torch.autocast("cpu", enabled=False):
            return self._judged(pixels.float())

    def _judged(self, pixels: Tensor) -> list[Tensor]:
        x, made = pixels.contiguous(memory_format=self.format), []
        for layer in self.layers:
            x = layer(x)
            made.append(x)
        return made


def _norm(kind: str, dims: int, width: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(max(1, width // 16), width)
    return nn.BatchNorm2d(width) if dims == 2 else nn.BatchNorm3d(width)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """(mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake))) / 2 of logits; `fake` of a detached reconstruction."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean D(fake) of logits."""
    return -fake.mean()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Sum over layers of mean |D_i(fake) - D_i(real)|, the logits left out; the gradient reaches `fake` alone."""
    pairs = zip(fake[:-1], real[:-1], strict=True)
    return torch.stack([(ours.float() - theirs.detach().float()).abs().mean() for ours, theirs in pairs]).sum()


def fixed(network: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    """The network as a function whose gradient reaches its input but not its weights: both players in one backward."""
    weights = {name: value.detach() for name, value in network.state_dict().items()}
    return lambda x: torch.func.functional_call(network, weights, (x,))
