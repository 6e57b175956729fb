"""The blocks of the causal video autoencoder: residual, attention, resampling.

Names and shapes of the parameters are those of diffusers' `AutoencoderKLWan`, so a state dict fits both. Every
`forward(x, state=None)` takes clips (B, C, T, H, W): without a state it is the one-shot definition; with a
`StreamState` it is one chunk of a stream, and the chunks' outputs joined in time equal the one-shot output.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.layers.causal_convolution import CausalConv3d, StreamState, convolve, pointwise
from longtake.tokenizers.channel_norm import ChannelNorm
from longtake.tokenizers.upsampling import double_and_convolve


class ResidualBlock(nn.Module):
    """x + conv(norm(conv(norm(x)))), SiLU after each norm, with a 1x1x1 convolution on the skip where the width changes."""

    def __init__(self, in_width: int, out_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_width)
        self.conv1 = CausalConv3d(in_width, out_width)
        self.norm2 = ChannelNorm(out_width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = CausalConv3d(out_width, out_width)
        nn.init.zeros_(self.conv2.weight)  # every block starts as its shortcut
        self.conv_shortcut = CausalConv3d(in_width, out_width, (1, 1, 1)) if in_width != out_width else nn.Identity()

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        y = self.conv1(self.norm1(x), state)
        y = self.conv2(self.dropout(self.norm2(y)), state)
        return y + self.conv_shortcut(x)


class FrameAttention(nn.Module):
    """Single-head self-attention over the pixels of each frame alone; frames do not see one another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, dims=2, silu=False)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(frames(x))  # (B*T, C, H, W)
        y = pointwise(y, self.to_qkv.weight, self.to_qkv.bias).flatten(2).transpose(1, 2).unsqueeze(1)
        y = F.scaled_dot_product_attention(*y.chunk(3, dim=-1)).squeeze(1).transpose(1, 2)  # (B*T, C, H*W)
        y = pointwise(y, self.proj.weight, self.proj.bias).unflatten(2, x.shape[3:])
        return x + clip_of(y, x.shape[0])


class Downsample(nn.Module):
    """Halve height and width, and with `temporal` also time (1 + 2k -> 1 + k).

    Space: zero row below and zero column right, then a stride-2 convolution per frame. Time: frame 0 passes untouched;
    the others are a stride-2 convolution of kernel 3 WITHOUT padding over the whole clip (its first window is frames
    0, 1, 2).
    """

    def __init__(self, width: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2))
        if temporal:
            self.time_conv = CausalConv3d(width, width, (3, 1, 1), stride=(2, 1, 1), causal=False)
        self.temporal = temporal

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        pad, convolution = self.resample
        y = convolve(pad(frames(x)), convolution.weight, convolution.bias, stride=(2,))
        x = clip_of(y, x.shape[0])
        if not self.temporal:
            return x
        before = state.history(self) if state is not None else None
        if state is not None:
            state.remember(self, x[:, :, -1:])
        if before is not None:
            return self.time_conv(torch.cat([before, x], dim=2))
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


class Upsample(nn.Module):
    """Double height and width, and with `temporal` also time (1 + k -> 1 + 2k); channels halve or become `out_width`.

    Time comes first: frame 0 passes untouched and is in nobody's history; each later frame becomes two by a causal
    convolution (kernel 3, zero history before frame 1) from C to 2C channels, split and interleaved. Space: nearest
    neighbour, then a convolution per frame.
    """

    def __init__(self, width: int, temporal: bool, out_width: int | None = None) -> None:
        super().__init__()
        self.resample = nn.Sequential(  # run as one operation, see `double_and_convolve`
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(width, out_width or width // 2, 3, padding=1)
        )
        if temporal:
            self.time_conv = CausalConv3d(width, 2 * width, (3, 1, 1))
        self.temporal = temporal

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        if self.temporal:
            x = self._double_time(x, state)
        convolution = self.resample[1]
        return clip_of(double_and_convolve(frames(x), convolution.weight, convolution.bias), x.shape[0])

    def _double_time(self, x: Tensor, state: StreamState | None) -> Tensor:
        if state is not None and state.has(self.time_conv):
            return self._pairs(x, state)
        if state is not None:
            state.remember(self.time_conv, x[:, :, :0])  # begun, with an empty history
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], self._pairs(x[:, :, 1:], state)], dim=2)

    def _pairs(self, x: Tensor, state: StreamState | None) -> Tensor:
        y = frames(self.time_conv(x, state)).unflatten(1, (2, -1))  # (B*T, 2, C, H, W)
        y = y.permute(0, 1, 3, 4, 2).flatten(0, 1)  # copied: the two halves of the channels become two frames
        return clip_of(y.movedim(-1, 1), x.shape[0])


def frames(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W); a view when channels are last in memory."""
    return x.transpose(1, 2).flatten(0, 1)


def clip_of(x: Tensor, batch: int) -> Tensor:
    """The inverse of `frames`."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


class Middle(nn.Module):
    """Residual block, attention per frame, residual block."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(width, width, dropout), ResidualBlock(width, width, dropout)])
        self.attentions = nn.ModuleList([FrameAttention(width)])

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = self.resnets[0](x, state)
        return self.resnets[1](self.attentions[0](x), state)
