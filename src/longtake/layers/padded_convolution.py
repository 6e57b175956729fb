"""3-D convolutions that keep or exactly halve and double a size, padded with what the border holds.

For kernel k and stride s every axis is padded by k - s in all, the larger half in front, in one of torch's modes. Zeros
(`constant`) tell the network where the border is, in time too; `replicate` repeats the border frame and pixels, so a still
clip looks the same everywhere (TATS, arXiv 2204.03638, section 3.2).
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.errors import BadInput, UnknownName, nearest
from longtake.layers.causal_convolution import convolve, pointwise

PADDINGS = ("replicate", "constant", "reflect", "circular")


class PaddedConv3d(nn.Conv3d):
    """Convolution that divides each size by its stride: (B, C, T, H, W) -> (B, C', T/s, H/s, W/s).

    Args:
        in_width, out_width: channels.
        kernel: of all axes.
        stride: (time, height, width); each divides the clip's size.
        mode: one of PADDINGS.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel: int,
        stride: tuple[int, int, int] = (1, 1, 1),
        mode: str = "replicate",
    ) -> None:
        super().__init__(in_width, out_width, kernel, stride)
        self.mode, self.pads = _checked(mode), [_pads(kernel, s) for s in stride]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.kernel_size == (1, 1, 1):
            return pointwise(x, self.weight, self.bias)
        return convolve(_pad(x, self.pads, self.mode), self.weight, self.bias, stride=self.stride)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """First and last input frame that output frames `first` to `last` are made of; those outside are padding."""
        front, stride = self.pads[0][0], self.stride[0]
        return first * stride - front, last * stride - front + self.kernel_size[0] - 1


class PaddedTransposedConv3d(nn.ConvTranspose3d):
    """Transposed convolution that keeps or doubles each size; arguments as `PaddedConv3d`, the kernel 4 where one doubles.

    On a doubled axis outputs 2q and 2q + 1 meet the kernel's odd and even taps, on inputs that are one apart. So it is
    computed as a plain convolution of half the kernel with channels for both, whose outputs are then put in turns: equal but
    for rounding, and its backward pass takes half the time of torch's transposed one on a CPU (measured in bf16).
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel: int,
        stride: tuple[int, int, int] = (1, 1, 1),
        mode: str = "replicate",
    ) -> None:
        super().__init__(in_width, out_width, kernel, stride, padding=kernel - 1)
        if max(stride) > 2 or (max(stride) == 2 and kernel != 4):
            raise BadInput(f"kernel {kernel} with strides {stride}; expected strides of 1, or of 1 and 2 with kernel 4")
        self.mode, self.pads = _checked(mode), [_pads(kernel, s) for s in stride]

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T*s, H*s, W*s)."""
        weight, phases, size = self.weight, self.stride, x.shape[2:]
        for axis, stride in enumerate(phases):  # (C, C', k, k, k) -> (C, C', phase, tap, phase, tap, phase, tap)
            at = 2 + 2 * axis
            weight = weight.flip(at).unflatten(at, (-1, stride)).transpose(at, at + 1)
        weight = weight.permute(2, 4, 6, 1, 0, 3, 5, 7).flatten(0, 3)
        made = convolve(_pad(x, self.pads, self.mode), weight, None).movedim(1, -1).unflatten(-1, (*phases, -1))
        parts = [
            made[:, t : t + size[0], h : h + size[1], w : w + size[2], t, h, w]
            for t, h, w in product(*map(range, phases))
        ]
        turns = torch.stack(parts, 4).unflatten(4, phases).permute(0, 1, 4, 2, 5, 3, 6, 7)
        turns = turns.reshape(len(x), *(n * s for n, s in zip(size, phases, strict=True)), -1)
        return (turns if self.bias is None else turns + self.bias.to(turns.dtype)).movedim(-1, 1)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """As `PaddedConv3d.needs`: output j meets input i (of the padded ones) where 0 <= j + k - 1 - i s < k."""
        front, stride, kernel = self.pads[0][0], self.stride[0], self.kernel_size[0]
        return -(-first // stride) - front, (last + kernel - 1) // stride - front


def _checked(mode: str) -> str:
    if mode not in PADDINGS:
        raise UnknownName(f"no padding is called '{mode}'.{nearest(mode, PADDINGS)}")
    return mode


def _pads(kernel: int, stride: int) -> tuple[int, int]:
    """Frames (rows, columns) in front and behind."""
    return (kernel - stride + 1) // 2, (kernel - stride) // 2


def _pad(x: Tensor, pads: list[tuple[int, int]], mode: str) -> Tensor:
    for size, (front, _) in zip(x.shape[2:], pads, strict=True):
        if (front >= size and mode == "reflect") or (front > size and mode == "circular"):
            raise BadInput(
                f"padding '{mode}' of {front} needs more than the {size} frames or pixels there are; use 'replicate'"
            )
    flat = [count for axis in reversed(pads) for count in axis]  # F.pad lists the last axis first
    return F.pad(x, flat, mode=mode)
