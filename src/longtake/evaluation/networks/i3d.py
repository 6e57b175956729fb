"""I3D, the network of FVD, for weights that a user has as safetensors.

Two-stream Inception-v1 inflated to three dimensions (Carreira and Zisserman, arXiv 1705.07750), RGB stream, 400 logits
of Kinetics before the softmax. Names of the weights are those of the common PyTorch files of the RGB stream
(``Conv3d_1a_7x7.conv3d.weight`` ... ``logits.conv3d.bias``). Padding is TensorFlow's "SAME", uneven at the end; batch
normalisation has eps 1e-3.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d, pad, relu

CLASSES, SIDE = 400, 224
_MIXED = {  # 1x1, 1x1 -> 3x3, 1x1 -> 3x3, pool -> 1x1 of each block, table 2 of Inception-v1
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_POOLS = {  # in front of these blocks: kernel, stride
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


class I3D(nn.Module):
    """Clips float (B, 3, T, 224, 224) in [-1, 1], T >= 9, -> logits (B, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        channels = 192
        for name, widths in _MIXED.items():
            self.add_module(name, _Mixed(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = _Unit(channels, CLASSES, 1, normed=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits, the mean over the time steps that are left."""
        for name, block in self.named_children():
            if name in _POOLS:
                pixels = _pool(pixels, *_POOLS[name])
            if name != "logits":
                pixels = block(pixels)
        pooled = nn.functional.avg_pool3d(pixels, (2, 7, 7), stride=1)
        return self.logits(pooled).mean((2, 3, 4))


def i3d_features(network: I3D, pixels: Tensor) -> Tensor:
    """Logits (B, 400) of uint8 (B, 3, T, H, W): floats, each frame to 224 x 224 by bilinear without antialias, [-1, 1]."""
    levels = pixels.float()
    if levels.shape[-2:] != (SIDE, SIDE):
        flat = levels.transpose(1, 2).flatten(0, 1)
        flat = interpolate(flat, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        levels = flat.unflatten(0, (pixels.shape[0], pixels.shape[2])).transpose(1, 2)
    return network(levels.mul(2 / 255).sub(1))


def load_i3d(weights: Mapping[str, Tensor], path: str | Path) -> I3D:
    """Build the network from weights; ValueError names the first that is missing, strange or of another shape."""
    with torch.device("meta"):
        network = I3D()
    wanted = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given:
            raise ValueError(f"{path} is not I3D: it has no weight '{name}'")
        if name not in wanted:
            raise ValueError(f"{path} is not I3D: it has a weight '{name}', which I3D has not")
        if given[name].shape != wanted[name].shape:
            shapes = tuple(given[name].shape), tuple(wanted[name].shape)
            raise ValueError(f"{path} is not I3D: '{name}' has shape {shapes[0]} and I3D's has {shapes[1]}")
    network = network.to_empty(device="cpu")
    network.load_state_dict({name: value.float() for name, value in given.items()}, strict=False)
    return network.eval().requires_grad_(False)


class _Unit(nn.Module):
    """Convolution, normalisation, ReLU; the last one of the network has a bias in place of both."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, *, normed: bool = True) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=not normed)
        if normed:
            self.bn = nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, pixels: Tensor) -> Tensor:
        out = self.conv3d(_same(pixels, self.conv3d.kernel_size, self.conv3d.stride))
        return relu(self.bn(out)) if hasattr(self, "bn") else out


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = _Unit(channels, widths[0], 1)
        self.b1a, self.b1b = _Unit(channels, widths[1], 1), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(channels, widths[3], 1), _Unit(widths[3], widths[4], 3)
        self.b3b = _Unit(channels, widths[5], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        pooled = _pool(pixels, (3, 3, 3), (1, 1, 1))
        branches = self.b0(pixels), self.b1b(self.b1a(pixels)), self.b2b(self.b2a(pixels)), self.b3b(pooled)
        return torch.cat(branches, 1)


def _pool(pixels: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return max_pool3d(_same(pixels, kernel, stride), kernel, stride)  # zeros around are no maximum of what ReLU gives


def _same(pixels: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pad so that the output has ceil(size / stride) steps, the odd one at the end."""
    around: list[int] = []
    for size, k, s in reversed(list(zip(pixels.shape[2:], kernel, stride, strict=True))):
        total = max(k - (size % s or s), 0)
        around += [total // 2, total - total // 2]
    return pad(pixels, around) if any(around) else pixels
