"""The loss of a KL autoencoder: reconstruction (L1, MSE or both) + KL, optionally perceptual and adversarial terms.

    total = l1 |x - y| + mse (x - y)^2 + kl KL(q || N(0, 1)) + perceptual P(x, y) + gan hinge(D(y)) + gradient |d(x - y)|

Every term is a mean over its own elements (pixels, latents, features), so a weight means the same at any clip size.
Wan (arXiv 2503.20314) trains with L1, KL and LPIPS, later a GAN with a 3-D discriminator; the weights are not in the
report. Defaults here: L1 + 1e-6 KL, and 0.1 is a sensible weight for the perceptual term.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.tokenizers.discriminator import hinge_generator


@dataclass
class TokenizerLoss:
    """Weights of the terms; a term of weight 0 costs nothing. Call it with one batch.

    Args:
        l1: mean absolute error of the pixels.
        mse: mean squared error of the pixels.
        gradient: mean absolute error of the differences between neighbouring pixels, in space and in time: edges.
        kl: divergence of the posterior from a standard normal, per latent element.
        perceptual: distance of features, by `features` or else by `RandomFeatures`.
        gan: hinge loss of a discriminator, which is passed with each call.
        features: a network (N, 3, H, W) in [-1, 1] -> list of features (N, C, h, w); its weights are not trained.
    """

    l1: float = 1.0
    mse: float = 0.0
    gradient: float = 0.0
    kl: float = 1e-6
    perceptual: float = 0.0
    gan: float = 0.0
    features: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("l1", "mse", "gradient", "kl", "perceptual", "gan"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise BadInput(f"loss weight {name} is {getattr(self, name)}; expected a number of at least 0")
        if self.perceptual and self.features is None:
            self.features = RandomFeatures()

    def __call__(
        self, decoded: Tensor, pixels: Tensor, mean: Tensor, logvar: Tensor, discriminator: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each term unweighted and detached, by name.

        Args:
            decoded: reconstruction (B, 3, T, H, W), not clamped: a clamped pixel has no gradient.
            pixels: the clip (B, 3, T, H, W) in [-1, 1].
            mean, logvar: posterior (B, C, T', H', W'), not normalised.
            discriminator: needed where `gan` is not 0. Its parameters also get gradients; clear them before its step.
        """
        decoded, difference = decoded.float(), decoded.float() - pixels.float()
        terms: dict[str, Tensor] = {}
        if self.l1:
            terms["l1"] = difference.abs().mean()
        if self.mse:
            terms["mse"] = difference.square().mean()
        if self.gradient:
            terms["gradient"] = edge_error(difference)
        if self.kl:
            terms["kl"] = kl_divergence(mean, logvar)
        if self.perceptual:
            assert self.features is not None
            terms["perceptual"] = feature_distance(self.features.to(pixels.device), decoded, pixels.float())
        if self.gan:
            if discriminator is None:
                raise BadInput(
                    f"loss weight gan is {self.gan}, but no discriminator was passed; pass one or set it to 0"
                )
            terms["gan"] = hinge_generator(discriminator(decoded)[-1])
        total = sum((getattr(self, name) * term for name, term in terms.items()), difference.new_zeros(()))
        return total, {name: term.detach() for name, term in terms.items()}


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) = (mean^2 + exp(logvar) - 1 - logvar) / 2, averaged over all elements."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def edge_error(difference: Tensor) -> Tensor:
    """Mean absolute difference between neighbours of an error (B, C, T, H, W), averaged over time, rows and columns."""
    sizes = [d for d in (2, 3, 4) if difference.shape[d] > 1]
    return sum((difference.diff(dim=d).abs().mean() for d in sizes), difference.new_zeros(())) / max(len(sizes), 1)


def feature_distance(network: nn.Module, decoded: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared distance of unit feature vectors of two clips (B, 3, T, H, W), frame by frame, over all levels.

    As LPIPS (arXiv 1801.03924, eq. 1) with all channel weights equal. Gradients reach `decoded` alone.
    """
    ours = network(decoded.transpose(1, 2).flatten(0, 1))
    with torch.no_grad():
        theirs = network(pixels.transpose(1, 2).flatten(0, 1))
    # eps keeps the gradient of a feature vector near zero (a flat region) finite
    pairs = [
        (F.normalize(a, dim=1, eps=1e-2), F.normalize(b, dim=1, eps=1e-2)) for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).mean()


class RandomFeatures(nn.Module):
    """An OFFLINE STAND-IN for a trained perceptual network: a fixed pyramid of random convolutions.

    Random features of edges and their textures need no download, but know nothing of what people see. Weights are drawn
    from a seed, orthogonal by filter, blind to constant colour, never trained; each level but the first halves the size.

    Args:
        width: channels of the first level; each next one has twice as many.
        levels: how many.
        seed: of the weights.
    """

    def __init__(self, width: int = 16, levels: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.levels = nn.ModuleList()
        before = 3
        for level in range(levels):
            layer = nn.Conv2d(before, width * 2**level, 3, padding=1, padding_mode="replicate")
            nn.init.orthogonal_(layer.weight, gain=2**0.5, generator=generator)
            if level == 0:  # no constant part: brightness is the pixel terms' business, edges and texture are ours
                layer.weight.data -= layer.weight.data.mean((2, 3), keepdim=True)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
            self.levels.append(layer)
            before = width * 2**level
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [-1, 1] -> features of every level, (N, width * 2^i, H / 2^i, W / 2^i)."""
        features, x = [], images.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.levels):
            x = F.leaky_relu(layer(F.avg_pool2d(x, 2) if i and min(x.shape[2:]) > 1 else x), 0.2)
            features.append(x)
        return features
