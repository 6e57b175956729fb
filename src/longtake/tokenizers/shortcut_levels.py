"""Levels of the autoencoder with a parameter-free shortcut around each, as in Wan 2.2 (`is_residual` in diffusers).

Going down, the shortcut folds space (and time) into channels and averages groups of them; going up, it repeats channels
and unfolds them. The learned path adds to it, so an untrained network already passes a blurred picture through, which
makes small ones train several times faster.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.layers.causal_convolution import StreamState, convolve
from longtake.tokenizers.causal_blocks import Downsample, ResidualBlock, Upsample


def fold_mean(x: Tensor, width: int, time: int, space: int) -> Tensor:
    """Average pixels (and neighbouring channels) into `width` channels: (B, C, T, H, W) -> (B, width, T', H', W').

    Space and time are folded into channels, ordered (channel, time, row, column), and `width` equal groups of
    neighbours are averaged: a strided convolution with fixed weights. An odd number of frames is completed by a zero
    frame in front, so frame 0 of a clip pairs with nothing.
    """
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    group = x.shape[1] * time * space * space // width
    weight = torch.eye(width, dtype=x.dtype, device=x.device).repeat_interleave(group, 1) / group
    return convolve(x, weight.view(width, x.shape[1], time, space, space), None, stride=(time, space, space))


def repeat_unfold(x: Tensor, width: int, time: int, space: int, *, first: bool) -> Tensor:
    """Repeat channels and unfold them into space and time; `first` drops the frames before frame 0 of the clip."""
    repeats = width * time * space * space // x.shape[1]
    x = x.repeat_interleave(repeats, 1).unflatten(1, (width, time, space, space))  # B C t h w T H W
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return x[:, :, time - 1 :] if first else x


class ShortcutDownLevel(nn.Module):
    """Residual blocks, then a downsampling (unless `last`), with the averaging shortcut around both."""

    def __init__(self, before: int, width: int, blocks: int, *, temporal: bool, last: bool, dropout: float) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width if i else before, width, dropout) for i in range(blocks))
        self.downsampler = None if last else Downsample(width, temporal)
        self.width, self.time, self.space = width, 2 if temporal and not last else 1, 1 if last else 2
        _check_widths(before * self.time * self.space**2, width, before)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        shortcut = fold_mean(x, self.width, self.time, self.space)
        for block in self.resnets:
            x = block(x, state)
        if self.downsampler is not None:
            x = self.downsampler(x, state)
        return x + shortcut


class ShortcutUpLevel(nn.Module):
    """Residual blocks, then an upsampling with the repeating shortcut around both; the last level has neither."""

    def __init__(self, before: int, width: int, blocks: int, *, temporal: bool, last: bool, dropout: float) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width if i else before, width, dropout) for i in range(blocks))
        self.upsampler = None if last else Upsample(width, temporal, width)
        self.width, self.time = width, 2 if temporal else 1
        if not last:
            _check_widths(width * self.time * 4, before, width)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        if self.upsampler is None:
            for block in self.resnets:
                x = block(x, state)
            return x
        # Time doubles only after frame 0; of a stream, the first chunk is the one the upsampling does not know yet.
        first = state is None or not (self.upsampler.temporal and state.has(self.upsampler.time_conv))
        shortcut = repeat_unfold(x, self.width, self.time, 2, first=first)
        for block in self.resnets:
            x = block(x, state)
        return self.upsampler(x, state) + shortcut


def _check_widths(folded: int, width: int, before: int) -> None:
    if folded % width:
        raise BadInput(
            f"a shortcut from width {before} ({folded} with space and time folded in) to {width} does not divide; choose "
            "multipliers that do: the last level cannot be wider than the one before it"
        )
