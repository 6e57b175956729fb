"""Encoder and decoder of the causal video autoencoder, put together from its blocks.

Wan 2.1 has plain levels; with `shortcuts`, levels carry the averaging shortcuts of Wan 2.2 (`shortcut_levels`).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from longtake.layers.causal_convolution import CausalConv3d, StreamState
from longtake.tokenizers.causal_blocks import Downsample, Middle, ResidualBlock, Upsample
from longtake.tokenizers.channel_norm import ChannelNorm
from longtake.tokenizers.shortcut_levels import ShortcutDownLevel, ShortcutUpLevel


class Encoder(nn.Module):
    """Pixels (B, in, T, H, W) -> features (B, out, T', H', W'), time and space reduced level by level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        base_width: int,
        multipliers: Sequence[int],
        blocks: int,
        temporal: Sequence[bool],
        dropout: float,
        shortcuts: bool = False,
    ) -> None:
        super().__init__()
        widths = [base_width * m for m in (1, *multipliers)]
        self.conv_in = CausalConv3d(in_channels, widths[0])
        self.down_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise(widths)):
            last = level == len(multipliers) - 1
            if shortcuts:
                halve = not last and temporal[level]
                self.down_blocks.append(
                    ShortcutDownLevel(before, width, blocks, temporal=halve, last=last, dropout=dropout)
                )
                continue
            for block in range(blocks):
                self.down_blocks.append(ResidualBlock(width if block else before, width, dropout))
            if not last:
                self.down_blocks.append(Downsample(width, temporal[level]))
        self.mid_block = Middle(widths[-1], dropout)
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], out_channels)
        self.gradient_checkpointing = False  # set by diffusers' enable_gradient_checkpointing

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = self.conv_in(x, state)
        for block in self.down_blocks:
            x = run_block(self, block, x, state)
        x = run_block(self, self.mid_block, x, state)
        return self.conv_out(self.norm_out(x), state)


class UpLevel(nn.Module):
    """One level of the decoder: `blocks` residual blocks, then an upsampling unless it is the last level."""

    def __init__(self, in_width: int, width: int, blocks: int, upsample: Upsample | None, dropout: float) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width if i else in_width, width, dropout) for i in range(blocks))
        self.upsamplers = nn.ModuleList([upsample]) if upsample is not None else None

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        for block in self.resnets:
            x = block(x, state)
        return x if self.upsamplers is None else self.upsamplers[0](x, state)


class Decoder(nn.Module):
    """Latents (B, in, T', H', W') -> pixels (B, out, T, H, W): the encoder mirrored, one block more per level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        base_width: int,
        multipliers: Sequence[int],
        blocks: int,
        temporal: Sequence[bool],
        dropout: float,
        shortcuts: bool = False,
    ) -> None:
        super().__init__()
        widths = [base_width * m for m in (multipliers[-1], *reversed(multipliers))]
        temporal = list(reversed(temporal))
        self.conv_in = CausalConv3d(in_channels, widths[0])
        self.mid_block = Middle(widths[0], dropout)
        self.up_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise(widths)):
            last = level == len(multipliers) - 1
            if shortcuts:
                double = not last and temporal[level]
                self.up_blocks.append(
                    ShortcutUpLevel(before, width, blocks + 1, temporal=double, last=last, dropout=dropout)
                )
                continue
            upsample = None if last else Upsample(width, temporal[level])
            # every upsampling before this level has halved the channels
            self.up_blocks.append(UpLevel(before // 2 if level else before, width, blocks + 1, upsample, dropout))
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], out_channels)
        self.gradient_checkpointing = False  # set by diffusers' enable_gradient_checkpointing

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = run_block(self, self.mid_block, self.conv_in(x, state), state)
        for level in self.up_blocks:
            x = run_block(self, level, x, state)
        return self.conv_out(self.norm_out(x), state)


def run_block(network: Encoder | Decoder, block: nn.Module, x: Tensor, state: StreamState | None) -> Tensor:
    """One block of a network; with gradient checkpointing, it is run again in the backward pass instead of kept."""
    if network.gradient_checkpointing and state is None and torch.is_grad_enabled():
        return network._gradient_checkpointing_func(block, x)  # pyright: ignore[reportCallIssue]
    return block(x, state)
