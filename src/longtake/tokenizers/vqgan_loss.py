"""The loss of the VQGAN's two players (TATS, arXiv 2204.03638, section 3.1, and code).

    autoencoder    l1 |x - y| + commitment (z - sg(e))^2 + perceptual P(f, f')
                   + g [ -mean D2(f') - mean D3(y) ] + g matching [ M2(f', f) + M3(y, x) ]
    discriminators g [ hinge(D2(f), D2(f')) + hinge(D3(x), D3(y)) ]

y is the reconstruction of the clip x, f and f' one random frame of each, M the distance of the discriminators' features;
g is 0 before step `start` and 1 from it on: a codebook that has a discriminator against it from the first never settles.
The l1 term is of pixels in [-0.5, 0.5], where the published weights belong.

The published perceptual term needs trained weights that do not come with the library: it is off unless it is asked for,
and is then that of `features` or of random ones, see `longtake.tokenizers.losses`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.tokenizers.discriminator import (
    PatchDiscriminator,
    feature_matching,
    fixed,
    hinge_discriminator,
    hinge_generator,
)
from longtake.tokenizers.losses import RandomFeatures, feature_distance
from longtake.tokenizers.vqgan3d import Coded

PARTS = ("l1", "commitment", "perceptual", "gan", "matching", "discriminator")


@dataclass
class VqganLoss:
    """Weights of the terms; defaults are the published ones but for the perceptual term, published as 4.

    Args:
        gan: of the discriminators; 0 leaves them out, feature matching too.
        start: steps before the discriminators join.
        features: a network (N, 3, H, W) in [-1, 1] -> list of features, see `TokenizerLoss`.
    """

    l1: float = 4.0
    commitment: float = 0.25
    perceptual: float = 0.0
    gan: float = 1.0
    matching: float = 4.0
    start: int = 10_000
    features: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("l1", "commitment", "perceptual", "gan", "matching", "start"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise BadInput(f"{name} of the loss is {getattr(self, name)}; expected a number of at least 0")
        if self.perceptual and self.features is None:
            self.features = RandomFeatures()

    def __call__(
        self,
        coded: Coded,
        pixels: Tensor,
        chosen: Tensor,
        of_frames: PatchDiscriminator,
        of_clips: PatchDiscriminator,
        *,
        joined: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Both players' losses in one sum, each of which reaches its own player's weights alone; and PARTS, detached.

        Args:
            coded: the tokenizer's round trip of `pixels` (B, 3, T, H, W) in [-1, 1].
            chosen: int64 (B,), the random frame of each clip.
            of_frames, of_clips: the discriminators.
            joined: g, whether the discriminators play.
        """
        decoded, pixels = coded.pixels.float(), pixels.float()
        ours, theirs = _frames(decoded, chosen), _frames(pixels, chosen)
        zero = decoded.new_zeros(())
        parts = dict.fromkeys(PARTS, zero)
        parts["l1"] = (decoded - pixels).abs().mean() / 2
        parts["commitment"] = coded.quantized.commitment
        if self.perceptual:
            assert self.features is not None
            features = self.features.to(pixels.device)
            parts["perceptual"] = feature_distance(features, ours[:, :, None], theirs[:, :, None])
        if joined and self.gan:
            for judge, fake, real in ((of_frames, ours, theirs), (of_clips, decoded, pixels)):
                seen, truth = fixed(judge)(fake), judge(real)
                parts["gan"] = parts["gan"] + hinge_generator(seen[-1].float())
                parts["matching"] = parts["matching"] + feature_matching(seen, truth)
                parts["discriminator"] = parts["discriminator"] + hinge_discriminator(
                    truth[-1].float(), judge(fake.detach())[-1].float()
                )
        total = sum((getattr(self, name) * parts[name] for name in PARTS[:5]), zero) + parts["discriminator"]
        return total, {name: part.detach() for name, part in parts.items()}


def _frames(clip: Tensor, chosen: Tensor) -> Tensor:
    """One frame of each clip: (B, C, T, H, W), (B,) -> (B, C, H, W)."""
    return clip[torch.arange(len(clip), device=clip.device), :, chosen]
