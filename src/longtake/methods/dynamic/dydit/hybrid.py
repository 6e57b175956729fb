"""DyDiT of the hybrid-stream network: heads are chosen for both streams at once, tokens among those of the video alone.

Text always goes through: in blocks with own weights for it its feed-forward network changes in width alone.
"""

from functools import partial

import torch
from torch import Tensor, nn

from longtake.backbones.waver_blocks import (
    BlockCondition,
    DualAttention,
    DualStreamBlock,
    Projections,
    SingleAttention,
    SingleStreamBlock,
    Stream,
)
from longtake.layers.modulation import add_gated, norm_modulate
from longtake.methods.dynamic.dydit.feeding import DynamicFeed
from longtake.methods.dynamic.dydit.heads import Heads
from longtake.methods.dynamic.dydit.routing import Routing, Spent
from longtake.runtime import TokenGrid


class DynamicAttention(nn.Module):
    """Joint attention with the heads that are on.

    Args:
        attention: whose weights it takes, of two streams or of one.
        width: D. name: under which a call's `Routing` keeps what was done. number: of its router.
    """

    def __init__(self, attention: DualAttention | SingleAttention, width: int, name: str, number: int) -> None:
        super().__init__()
        self.name, self.attention, self.heads = name, attention, attention.attend.site.heads
        self.choice = Heads(width, self.heads, width // self.heads, number)

    def forward(
        self, x: Tensor, text: Tensor | None, cond: BlockCondition, grid: TokenGrid
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, N, D) and text (B, L, D) of a block of two streams, or x (B, N + L, D) of one -> the same."""
        own = self.attention
        if isinstance(own, SingleAttention):
            (joint,) = self._streams([own.joint], [x.shape[1]], x.shape[1], cond.routing)
            return own.through(x, cond, grid, joint), None
        assert text is not None
        lengths = [x.shape[1], text.shape[1]]
        video, words = self._streams([own.video, own.text], lengths, sum(lengths), cond.routing)
        return own.through(x, text, cond, grid, video, words)

    def _streams(self, own: list[Projections], lengths: list[int], seen: int, routing: Routing) -> list[Stream]:
        """What each stream is computed with, and a note of what that is."""
        width = own[0].qkv.in_features
        whole = sum(
            n * width * ((3 if one.out is None else 4) * width + 2 * seen) for one, n in zip(own, lengths, strict=True)
        )
        layers = [layer for one in own for layer in (one.qkv, one.out) if layer is not None]
        active, cut = self.choice.active(routing), self.choice.cut(tuple(layers), routing)
        if active is None or cut is None:
            gates = routing.width(self.choice.router)
            routing.spent[self.name] = Spent(whole, gates.mean(1))
            heads = own[0].heads
            made = [(one.qkv, None if one.out is None else self.choice.masked(one.out, gates)) for one in own]
        else:
            routing.spent[self.name] = Spent(whole, len(active) / self.choice.router.units)
            heads = len(active)
            rest = iter(cut)
            made = [(next(rest), None if one.out is None else next(rest)) for one in own]
        return [Stream(qkv, out, heads, one.q_gain, one.k_gain) for one, (qkv, out) in zip(own, made, strict=True)]


class DynamicDual(nn.Module):
    """A block of own weights for video and text. Arguments as `longtake.methods.dynamic.dydit.latte.DynamicBlock`."""

    def __init__(self, block: DualStreamBlock, layer: int, width: int, heads: int, number: int, tokens: bool) -> None:
        super().__init__()
        self.block = block
        self.attention = DynamicAttention(block.attention, width, f"{layer}.joint", number)
        self.feed = DynamicFeed(block.video_ffn, heads, f"{layer}.ffn", number + 1, tokens)
        self.text_feed = None
        if block.text_ffn is not None:
            self.text_feed = DynamicFeed(block.text_ffn, heads, f"{layer}.text_ffn", number + 3, False)
        del block.attention, block.video_ffn, block.text_ffn

    def forward(self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """h (B, N, D) and text (B, L, D) -> the same."""
        shift, scale, gate, shift_f, scale_f, gate_f = self.block.video_modulation(cond)
        of_text = self.block.text_modulation(cond)
        words = norm_modulate(text, of_text[0], of_text[1])
        video, told = self.attention(norm_modulate(h, shift, scale), words, cond, grid)
        h = add_gated(h, gate, video)
        h = add_gated(h, gate_f, self.feed(h, shift_f, scale_f, cond.routing))
        if self.text_feed is None or told is None:
            return h, text
        text = add_gated(text, of_text[2], told)
        return h, add_gated(text, of_text[5], self.text_feed(text, of_text[3], of_text[4], cond.routing))


class DynamicSingle(nn.Module):
    """A block of shared weights. Arguments as `longtake.methods.dynamic.dydit.latte.DynamicBlock`."""

    def __init__(self, block: SingleStreamBlock, layer: int, width: int, heads: int, number: int, tokens: bool) -> None:
        super().__init__()
        self.block = block
        self.attention = DynamicAttention(block.attention, width, f"{layer}.joint", number)
        self.feed = DynamicFeed(block.ffn, heads, f"{layer}.ffn", number + 1, tokens)
        del block.attention, block.ffn

    def forward(self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """h (B, N, D) and text (B, L, D) -> the same."""
        shift, scale, gate, shift_f, scale_f, gate_f = self.block.modulation(cond)
        x = torch.cat([h, text], dim=1)
        x = add_gated(x, gate, self.attention(norm_modulate(x, shift, scale), None, cond, grid)[0])
        x = add_gated(x, gate_f, self.feed(x, shift_f, scale_f, cond.routing, always=text.shape[1]))
        h, text = x.split([h.shape[1], text.shape[1]], dim=1)
        return h, text


def convert_blocks(blocks: nn.ModuleList, width: int, heads: int, tokens: bool) -> nn.ModuleList:
    """The blocks as dynamic ones; they are taken over, and changed. Each has four numbers for its routers."""
    make = partial(_dynamic, width=width, heads=heads, tokens=tokens)
    return nn.ModuleList(make(block, i, number=4 * i) for i, block in enumerate(blocks))


def _dynamic(block: nn.Module, layer: int, width: int, heads: int, number: int, tokens: bool) -> nn.Module:
    kind = DynamicDual if isinstance(block, DualStreamBlock) else DynamicSingle
    return kind(block, layer, width, heads, number, tokens)  # type: ignore[arg-type]
