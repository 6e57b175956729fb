"""FlexDiT of HybridStreamDiT: pooling over time, rows and columns at once, text tokens in every block.

Video tokens are (B, N, D). Text is never pooled: its tokens ride along in queries, keys and values, also where sparse
video tokens attend to dense ones or the reverse, so its mean over all tokens would be no pooling of video; the bottom
stays as it is. A sparse token's rotary position is the mean one of its cell, which need not be whole.
"""

from dataclasses import replace
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
)
from longtake.layers.modulation import add_gated, norm_modulate
from longtake.layers.rotary import norm_rotate, rotary_table
from longtake.methods.dynamic.flexdit.density import Layout
from longtake.methods.dynamic.flexdit.pieces import arrange, centres, fusion, linear_of, pool, spread
from longtake.runtime import AttendPoint, AttnCall, TokenGrid


class CrossProjections(nn.Module):
    """q apart from k and v, with their norms' gains and the output projection, of one stream."""

    def __init__(self, fused: Projections) -> None:
        super().__init__()
        self.heads = fused.heads
        self.q, self.kv = linear_of(fused.qkv, 0, 1), linear_of(fused.qkv, 1, 3)
        self.q_gain, self.k_gain, self.out = fused.q_gain, fused.k_gain, fused.out

    def queries(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, 1, H, d), before norm."""
        return self.q(x).unflatten(-1, (1, self.heads, -1))

    def states(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, 2, H, d), k before norm, and v."""
        return self.kv(x).unflatten(-1, (2, self.heads, -1))


class CrossAttention(nn.Module):
    """Joint attention whose video queries are on one grid and whose video keys are on another.

    Args:
        attention: whose weights it takes; of two streams or of one.
    """

    def __init__(self, attention: DualAttention | SingleAttention) -> None:
        super().__init__()
        dual = isinstance(attention, DualAttention)
        self.video = CrossProjections(attention.video if dual else attention.joint)
        self.text = CrossProjections(attention.text) if dual else None
        self.attend = AttendPoint(replace(attention.attend.site, kind="attn.cross"))

    def forward(
        self, u: Tensor, seen: Tensor, text: Tensor, own: BlockCondition, other: BlockCondition, grid: TokenGrid
    ) -> tuple[Tensor, Tensor | None]:
        """u (B, N, D) on `grid`, seen (B, M, D) on the other, text (B, L, D) -> video and text, before gates."""
        of_text = self.video if self.text is None else self.text
        lengths, streams = [u.shape[1], text.shape[1]], (self.video, of_text)
        q = torch.cat([self.video.queries(u), of_text.queries(text)], dim=1)
        kv = torch.cat([self.video.states(seen), of_text.states(text)], dim=1)
        k, v = kv.split(1, dim=2)
        q = norm_rotate(q, _gains([s.q_gain for s in streams], lengths), own.rotary)
        k = norm_rotate(k, _gains([s.k_gain for s in streams], [seen.shape[1], lengths[1]]), other.rotary)
        q, k, v = (x.squeeze(2).transpose(1, 2) for x in (q, k, v))
        call = AttnCall(q, k, v, grid, lengths[1], "last", other.mask)
        video, words = self.attend(call, own.info).transpose(1, 2).flatten(2).split(lengths, dim=1)
        return self.video.out(video), None if of_text.out is None else of_text.out(words)


class CrossBlock(nn.Module):
    """A block whose video tokens are on one grid, and whose video keys and values come from another.

    Args:
        block: whose weights it takes.
    """

    def __init__(self, block: DualStreamBlock | SingleStreamBlock) -> None:
        super().__init__()
        self.block = block
        block.attention = CrossAttention(block.attention)  # type: ignore[assignment]

    def forward(
        self, h: Tensor, seen: Tensor, text: Tensor, own: BlockCondition, other: BlockCondition, grid: TokenGrid
    ) -> tuple[Tensor, Tensor]:
        """h (B, N, D) on `grid`, seen (B, M, D), text (B, L, D) -> h and text."""
        block = self.block
        if isinstance(block, DualStreamBlock):
            of_video, of_text = block.video_modulation(own), block.text_modulation(own)
            video_ffn, text_ffn = block.video_ffn, block.text_ffn
        else:
            of_video = of_text = block.modulation(own)
            video_ffn = text_ffn = block.ffn
        shift, scale, gate, shift_f, scale_f, gate_f = of_video
        u, states = (norm_modulate(x, shift, scale) for x in (h, seen))
        words = norm_modulate(text, of_text[0], of_text[1])
        video, told = block.attention(u, states, words, own, other, grid)
        h = add_gated(h, gate, video)
        h = add_gated(h, gate_f, video_ffn(norm_modulate(h, shift_f, scale_f)))
        if text_ffn is None or told is None:
            return h, text
        text = add_gated(text, of_text[2], told)
        return h, add_gated(text, of_text[5], text_ffn(norm_modulate(text, of_text[3], of_text[4])))


class SparseDenseModule(nn.Module):
    """Pool, generate, sparse blocks, recover, dense blocks: dense video tokens in, dense video tokens out.

    Args:
        generate, sparse, dense: its blocks of each role, in order. recover: the one that recovers.
        width: D. theta: base of the rotary frequencies.
    """

    def __init__(
        self,
        generate: list[nn.Module],
        sparse: list[nn.Module],
        recover: nn.Module,
        dense: list[nn.Module],
        width: int,
        theta: float,
    ) -> None:
        super().__init__()
        self.theta = theta
        self.generate = nn.ModuleList(CrossBlock(block) for block in generate)  # type: ignore[arg-type]
        self.sparse = nn.ModuleList(sparse)
        self.from_sparse, self.from_dense = fusion(width)
        self.recover = CrossBlock(recover)  # type: ignore[arg-type]
        self.dense = nn.ModuleList(dense)

    def forward(self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """h (B, N, D) and text (B, L, D) -> the same."""
        few = grid if cond.sparse is None else cond.sparse
        own = on_grid(cond, grid, few, text.shape[1], self.theta)
        s = pool(h.unflatten(1, (grid.frames, -1)), grid, few).flatten(1, 2)
        for block in self.generate:
            s, text = block(s, h, text, own, cond, few)
        for block in self.sparse:
            s, text = block(s, text, own, few)
        up = spread(s.unflatten(1, (few.frames, -1)), grid, few).flatten(1, 2)
        h = self.from_sparse(up) + self.from_dense(h)
        h, text = self.recover(h, s, text, cond, own, grid)
        for block in self.dense:
            h, text = block(h, text, cond, grid)
        return h, text


def convert_blocks(blocks: nn.ModuleList, layout: Layout, width: int, theta: float) -> nn.ModuleList:
    """The blocks of a HybridStreamDiT in a layout's roles; they are taken over, and changed."""
    module = partial(SparseDenseModule, width=width, theta=theta)
    return arrange(blocks, layout, module)[1]


def on_grid(cond: BlockCondition, dense: TokenGrid, sparse: TokenGrid, words: int, theta: float) -> BlockCondition:
    """The condition for video tokens on a coarser grid: rotary positions of its cells, and the text's mask."""
    if sparse == dense:
        return cond
    rotary, mask = cond.rotary, cond.mask
    if rotary is not None:
        places = [centres(many, few) for many, few in zip(dense, sparse, strict=True)]
        rotary = rotary_table(
            sparse, 2 * rotary.shape[-1], extra=words, theta=theta, places=places, device=rotary.device
        )
    if mask is not None:
        mask = mask[..., dense.tokens - sparse.tokens :]  # video tokens are all seen, and stand first
    return replace(cond, rotary=rotary, mask=mask)


def _gains(gains: list[Tensor], lengths: list[int]) -> Tensor:
    """Gain of the norm of every token of both streams: (S, 1, 1, d) float32."""
    return torch.cat([gain.float().expand(n, 1, 1, -1) for gain, n in zip(gains, lengths, strict=True)])
