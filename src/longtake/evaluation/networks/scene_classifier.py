"""The feature networks that need no download: a small classifier of scenes, over clips or over single frames.

Three levels of a spatial convolution (1, 3, 3) that halves height and width and a temporal one (3, 1, 1) that halves
the frames, then one convolution over the two steps that are left; without the temporal ones it sees single frames. Its
features are the means over space and time of the second level, which is fine enough to see texture, noise and blur,
and of the last one, which names motion and objects. Those of a trained network are brought to mean 0 over training
clips, and each level to one spread, the fine one to half of it: then neither drowns the other in a distance. Features of
one level keep their proportions; with a deviation of 1 each, the floor of a distance would rise twice as fast as what
shuffled or frozen frames do to it.

``scenes-3d`` and ``scenes-2d`` were trained on scenes (`longtake.evaluation.networks.fitting`) and are shipped.
``random-3d`` and ``random-2d`` are the same networks with weights drawn from a seed; their normalisation is set on
clips of soft noise from that seed. A random network nearly ignores time: it is a control, never a judge by itself.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import interpolate

WINDOW, SIDE = 16, 64
"""Frames of a window, and height and width to which pictures are brought."""
WIDTHS = (24, 48, 80)
FINE_SPREAD = 0.5
"""Of the second level's features against the last level's."""
RANDOM_SEED = 0


class SceneClassifier(ModelMixin, ConfigMixin):
    """Names what a scene shows; its inner features are what distances are taken of.

    Args:
        heads: names of each attribute that it tells, in the order of the outputs.
        window: frames that it sees at a time; 1 makes it a network of single frames.
        widths: channels of the three levels.
        own_accuracy: share of held-out clips in which an attribute was told without a mistake; None until measured.
        training: what it was trained on, for how long; None if it was not.
    """

    @register_to_config
    def __init__(
        self,
        heads: Mapping[str, Sequence[str]],
        window: int = WINDOW,
        widths: Sequence[int] = WIDTHS,
        own_accuracy: dict[str, float] | None = None,
        training: dict | None = None,
    ) -> None:
        super().__init__()
        low, middle, high = widths
        timed = window > 1
        self.fine = nn.Sequential(_level(3, low, timed), _level(low, middle, timed))
        self.coarse = nn.Sequential(
            _level(middle, high, timed),
            _convolution(high, high, (1, 3, 3), (1, 1, 1)),
            _convolution(high, high, (2 if timed else 1, 3, 3), (1, 1, 1)),
        )
        self.outputs = nn.ModuleDict({name: nn.Linear(middle + high, len(names)) for name, names in heads.items()})
        self.register_buffer("feature_mean", torch.zeros(middle + high))
        self.register_buffer("feature_deviation", torch.ones(middle + high))

    @property
    def width(self) -> int:
        """Number of features D."""
        return len(self.feature_mean)

    def raw_features(self, pixels: Tensor) -> Tensor:
        """Windows float (B, 3, `window`, 64, 64) in [-1, 1] -> features before they are normalised, (B, D)."""
        fine = self.fine(pixels)
        return torch.cat([fine.mean((2, 3, 4)), self.coarse(fine).mean((2, 3, 4))], 1)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Windows float (B, 3, `window`, 64, 64) in [-1, 1] -> logits (B, names) of each head."""
        features = self._normalise(self.raw_features(pixels))
        return {name: head(features) for name, head in self.outputs.items()}

    def features(self, pixels: Tensor) -> Tensor:
        """Features (B, D) of clips uint8 (B, 3, T, H, W): the mean over windows (see `windows`)."""
        cut = windows(pixels, self.config.window)  # (B, W, 3, window, H, W)
        found = self.raw_features(to_input(cut.flatten(0, 1)).to(self.dtype))
        return self._normalise(found).unflatten(0, cut.shape[:2]).mean(1)

    def probabilities(self, pixels: Tensor, head: str = "motion") -> Tensor:
        """Class probabilities (B, K) of one head for clips uint8 (B, 3, T, H, W), the mean over windows."""
        return self.outputs[head](self.features(pixels).to(self.dtype)).float().softmax(1)

    def _normalise(self, features: Tensor) -> Tensor:
        features = features.float() if features.dtype.itemsize < 4 else features
        return (features - self.feature_mean.to(features)) / self.feature_deviation.to(features)


def windows(pixels: Tensor, window: int) -> Tensor:
    """Cut clips (B, C, T, H, W) into windows (B, W, C, window, H, W).

    T // window of them, spread evenly over the clip, the first at its beginning. A clip shorter than a window is
    played slower: frame floor(k T / window) stands at place k.
    """
    frames = pixels.shape[2]
    if frames < window:
        slow = torch.arange(window) * frames // window
        return pixels[:, :, slow][:, None]
    count = frames // window
    starts = [0] if count == 1 else [round(k * (frames - window) / (count - 1)) for k in range(count)]
    return torch.stack([pixels[:, :, start : start + window] for start in starts], 1)


def to_input(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, T, H, W) -> float (B, 3, T, 64, 64) in [-1, 1], resized with antialias where it is another size."""
    levels = pixels.float().div(127.5).sub(1)
    if pixels.shape[-2:] == (SIDE, SIDE):
        return levels
    flat = levels.transpose(1, 2).flatten(0, 1)
    flat = interpolate(flat, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return flat.unflatten(0, (pixels.shape[0], pixels.shape[2])).transpose(1, 2)


def random_classifier(window: int, seed: int = RANDOM_SEED) -> SceneClassifier:
    """A network with weights from a seed, normalised on soft noise; it names nothing."""
    generator = torch.Generator().manual_seed(seed)
    network = SceneClassifier({}, window=window)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * math.sqrt(2 / weight[0].numel()))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.momentum = None  # take the statistics of this one batch
        network.train().raw_features(windows(soft_noise(4, WINDOW, generator), window).flatten(0, 1))
    return network.eval().requires_grad_(False)


def soft_noise(count: int, frames: int, generator: torch.Generator) -> Tensor:
    """Clips (count, 3, frames, 64, 64) in [-1, 1] of noise at all scales, coarser ones stronger, as in pictures."""
    clips = torch.zeros(count, 3, frames, SIDE, SIDE)
    for size in (2, 4, 8, 16, 32, 64):
        coarse = torch.randn(count, 3, max(2, frames * size // SIDE), size, size, generator=generator)
        clips += interpolate(coarse, size=(frames, SIDE, SIDE), mode="trilinear", align_corners=False) / math.sqrt(size)
    return clips.clamp(-1, 1)


def set_normalisation(network: SceneClassifier, raw: Tensor) -> None:
    """Bring features to mean 0 and each level to its spread over some clips, given their `raw_features` (N, D)."""
    middle = network.config.widths[1]
    network.feature_mean.copy_(raw.mean(0))
    for level, spread in ((slice(None, middle), FINE_SPREAD), (slice(middle, None), 1.0)):
        network.feature_deviation[level] = (raw[:, level].var(0).mean().sqrt() / spread).clamp_min(1e-6)


def _level(channels: int, out: int, timed: bool) -> nn.Sequential:
    steps = [_convolution(channels, out, (1, 3, 3), (1, 2, 2))]
    if timed:
        steps.append(_convolution(out, out, (3, 1, 1), (2, 1, 1)))
    return nn.Sequential(*steps)


def _convolution(channels: int, out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2 if kernel[0] == 3 else 0, 1 if kernel[1] == 3 else 0, 1 if kernel[2] == 3 else 0)
    convolution = nn.Conv3d(channels, out, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(out), nn.ReLU())
