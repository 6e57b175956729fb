"""Causal 3-D convolution whose memory of the past is an explicit object.

A causal convolution sees the present frame and those before it: the clip is padded with zero frames in FRONT of time
and none behind. To run a long clip in chunks, each convolution needs the last frames of the chunk before. They live in
a `StreamState`, one per stream, never on the module, so two clips can be streamed through one network at once.
(The feature cache of Wan, arXiv 2503.20314, `systems/wan.md` part A.)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StreamState:
    """What the convolutions of one network remember of ONE stream: the last input frames of each.

    A fresh state stands for "nothing seen yet": every convolution then sees zero frames in front. Pass the same object
    with each chunk of the same clip; make a new one for the next clip.
    """

    def __init__(self) -> None:
        self._frames: dict[nn.Module, Tensor] = {}

    def has(self, module: nn.Module) -> bool:
        """True once `module` has seen a chunk of this stream."""
        return module in self._frames

    def history(self, module: nn.Module) -> Tensor | None:
        """The remembered frames of `module`, (B, C, n, H, W), or None before its first chunk. n may be 0."""
        return self._frames.get(module)

    def remember(self, module: nn.Module, frames: Tensor) -> None:
        """Replace what `module` remembers by a copy of `frames` (B, C, n, H, W); a view would keep the chunk alive."""
        self._frames[module] = frames.clone()

    def bytes(self) -> int:
        """Bytes held, which do not depend on the clip's length."""
        return sum(f.numel() * f.element_size() for f in self._frames.values())


class CausalConv3d(nn.Conv3d):
    """Conv3d with `kernel[0] - 1` frames of past in front, none behind, and symmetric zero padding in space.

    Weight and bias have the names and shapes of `nn.Conv3d` (and so of diffusers' `WanCausalConv3d`).

    Args:
        in_channels, out_channels: widths.
        kernel: (time, height, width); height and width odd.
        stride: (time, height, width). With a time stride, the caller says where the windows start by what it passes.
        causal: False leaves time unpadded; then `state` must not be passed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        stride: tuple[int, int, int] = (1, 1, 1),
        causal: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, (0, kernel[1] // 2, kernel[2] // 2))
        self.past = kernel[0] - 1 if causal else 0

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T, H', W'), with zeros, or the frames remembered in `state`, in front."""
        if self.past:
            before = state.history(self) if state is not None else None
            if before is not None:
                x = torch.cat([before, x], dim=2)
            if state is not None:
                state.remember(self, x[:, :, -self.past :])
            missing = self.past - (0 if before is None else before.shape[2])
            if missing:
                x = F.pad(x, (0, 0, 0, 0, missing, 0))
        if self.kernel_size == (1, 1, 1):
            return pointwise(x, self.weight, self.bias)
        if self.kernel_size[1:] == (1, 1) and x.device.type == "cpu":
            return pointwise(_time_windows(x, self.kernel_size[0], self.stride[0]), self.weight, self.bias)
        return convolve(x, self.weight, self.bias, padding=self.padding, stride=self.stride)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: Sequence[int] = (0,), stride: Sequence[int] = (1,)
) -> Tensor:
    """`F.conv2d` or `F.conv3d`, without their slow path for one float32 clip on the CPU.

    Below a size, torch leaves a batch of ONE to a kernel of its own that is up to 12 times slower than oneDNN's
    (measured: 32 channels, 19x32x32, one thread) and loses the memory format. `padding` and `stride` have one entry, or
    one for each dimension.
    """
    dims = weight.ndim - 2
    padding, stride = [[*p] * dims if len(p) == 1 else [*p] for p in (padding, stride)]
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.shape[0] == 1
    if plain and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, [1] * dims, 1)
    return (F.conv2d if dims == 2 else F.conv3d)(x, weight, bias, stride, padding)


def _time_windows(x: Tensor, size: int, stride: int) -> Tensor:
    """(B, C, T, H, W) -> (B, C * size, T', H, W): each frame's channels with the next size - 1 frames' beside them."""
    windows = x.movedim(1, -1).unfold(1, size, stride)  # (B, T', H, W, C, size), a view
    return windows.flatten(-2).movedim(-1, 1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of kernel 1 as a matrix product: (B, C, ..., H, W) -> (B, C', ..., H, W), channels last in memory.

    `weight` is (C', C, 1, ...). On the CPU, torch's own convolutions of kernel 1 lose the memory format when it runs
    with one thread.
    """
    return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
