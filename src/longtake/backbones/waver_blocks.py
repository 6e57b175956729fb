"""The blocks of Waver (arXiv 2508.15761): video and text tokens attend jointly, with own weights or with shared ones.

A block with time modulation (shift, scale, gate for attention, the same for the feed-forward network, adaLN-Zero):
    x = x + gate_a * out(attention(norm(x) * (1 + scale_a) + shift_a))
    x = x + gate_f * ffn(norm(x) * (1 + scale_f) + shift_f)

A single-stream block runs the two in sequence, as a dual-stream block does, so that it equals a dual-stream block with
tied weights (the paper is silent). RMSNorm on q and k runs over each head's features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from longtake.layers.attention import FeedForward
from longtake.layers.linear import Linear
from longtake.layers.modulation import ModulationProjection, add_gated, norm_modulate
from longtake.layers.rotary import norm_rotate
from longtake.runtime import AttendPoint, AttnCall, Site, StepInfo, TokenGrid

PARTS = 6  # shift, scale, gate of the attention; shift, scale, gate of the feed-forward network


@dataclass
class BlockCondition:
    """What every block is given besides the tokens.

    Args:
        time: (B, D) float32, embedded timestep.
        rest: (B, D) float32, the rest of the global condition (pooled text), or None.
        shared: (B, 6, D) float32, the model's shared modulation, or None when blocks project their own.
        rotary: complex64 (N + L, head_dim/2), or None.
        mask: bool (B, 1, 1, N + L), True = may be attended, or None = all.
        info: which forward of which run, None outside one.
        sparse: grid of the video tokens that sparse blocks work on at this noise level; None in a network without any.
        routing: what dynamic blocks decide by; None in a network without any.
    """

    time: Tensor
    rest: Tensor | None
    shared: Tensor | None
    rotary: Tensor | None
    mask: Tensor | None
    info: StepInfo | None
    sparse: TokenGrid | None = None
    routing: Any = None

    @property
    def total(self) -> Tensor:
        """(B, D) sum of the time and the rest."""
        return self.time if self.rest is None else self.time + self.rest


class BlockModulation(nn.Module):
    """Shift, scale and gate of one stream of one block, either projected here or a table on top of a shared one."""

    def __init__(self, width: int, kind: str):
        super().__init__()
        self.projection = ModulationProjection(width, PARTS) if kind == "block" else None
        self.table = nn.Parameter(torch.zeros(PARTS, width)) if kind == "shared" else None

    def forward(self, cond: BlockCondition) -> tuple[Tensor, ...]:
        """Return six float32 tensors (B, 1, D)."""
        if self.table is None or cond.shared is None:
            parts = self.projection(cond.total)
        else:
            parts = cond.shared + self.table.float()
        return parts.unsqueeze(2).unbind(1)


Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stream:
    """What an attention computes q, k, v and its output of one stream with.

    Args:
        qkv: (B, N, D) -> (B, N, 3 H head_dim). out: (B, N, H head_dim) -> (B, N, D), None where nothing comes out.
        heads: H. q_gain, k_gain: (head_dim,), of RMSNorm on q and k.
    """

    qkv: Layer
    out: Layer | None
    heads: int
    q_gain: Tensor
    k_gain: Tensor

    def split(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> (B, N, 3, H, head_dim), before norm."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1))

    def gain(self) -> Tensor:
        """(1, 2, 1, head_dim) float32, gains of q and k."""
        return torch.stack([self.q_gain, self.k_gain])[None, :, None].float()


class Projections(nn.Module):
    """q, k, v, the gains of RMSNorm on q and k, and the output projection, of one stream."""

    def __init__(self, width: int, heads: int, last: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.q_gain = nn.Parameter(torch.ones(width // heads))
        self.k_gain = nn.Parameter(torch.ones(width // heads))
        self.out = None if last else Linear(width, width)

    def stream(self) -> Stream:
        """Its layers."""
        return Stream(self.qkv, self.out, self.heads, self.q_gain, self.k_gain)


def _attend(
    point: AttendPoint, qkv: Tensor, gain: Tensor, cond: BlockCondition, grid: TokenGrid, text_len: int
) -> Tensor:
    """Norm and turn q and k, attend over the joint sequence: qkv (B, S, 3, H, head_dim) -> (B, S, D)."""
    qk, v = qkv.split([2, 1], dim=2)
    q, k, v = (x.transpose(1, 2) for x in (*norm_rotate(qk, gain, cond.rotary).unbind(2), v.squeeze(2)))
    call = AttnCall(q, k, v, grid, text_len, "last", cond.mask)
    return point(call, cond.info).transpose(1, 2).flatten(2)


class DualAttention(nn.Module):
    """Joint attention with own projections per stream. Returns both streams' outputs before gating."""

    def __init__(self, width: int, site: Site, last: bool):
        super().__init__()
        self.video = Projections(width, site.heads)
        self.text = Projections(width, site.heads, last)
        self.attend = AttendPoint(site)

    def forward(self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid) -> tuple[Tensor, Tensor | None]:
        """h (B, N, D), text (B, L, D) -> the same; None for the text of a last block."""
        return self.through(h, text, cond, grid, self.video.stream(), self.text.stream())

    def through(
        self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid, video: Stream, words: Stream
    ) -> tuple[Tensor, Tensor | None]:
        """The same through other layers."""
        lengths = [h.shape[1], text.shape[1]]
        qkv = torch.cat([video.split(h), words.split(text)], dim=1)
        gains = zip((video.gain(), words.gain()), lengths, strict=True)
        gain = torch.cat([g.expand(n, -1, -1, -1) for g, n in gains])
        of_video, of_text = _attend(self.attend, qkv, gain, cond, grid, lengths[1]).split(lengths, dim=1)
        assert video.out is not None
        return video.out(of_video), None if words.out is None else words.out(of_text)


class DualStreamBlock(nn.Module):
    """One block with own weights for video and text.

    Args:
        width, inner: features of a token and of the feed-forward network.
        site: of its attention.
        modulation: "block" or "shared".
        last: the model ends here, so the text output is not needed and has no weights.
    """

    def __init__(self, width: int, inner: int, site: Site, modulation: str, last: bool = False):
        super().__init__()
        self.video_modulation = BlockModulation(width, modulation)
        self.text_modulation = BlockModulation(width, modulation)
        self.attention = DualAttention(width, site, last)
        self.video_ffn = FeedForward(width, inner)
        self.text_ffn = None if last else FeedForward(width, inner)

    def forward(self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """h (B, N, D) and text (B, L, D) -> the same."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.video_modulation(cond)
        shift_at, scale_at, gate_at, shift_ft, scale_ft, gate_ft = self.text_modulation(cond)
        video, words = self.attention(
            norm_modulate(h, shift_a, scale_a), norm_modulate(text, shift_at, scale_at), cond, grid
        )
        h = add_gated(h, gate_a, video)
        h = add_gated(h, gate_f, self.video_ffn(norm_modulate(h, shift_f, scale_f)))
        if self.text_ffn is None:
            return h, text
        text = add_gated(text, gate_at, words)
        return h, add_gated(text, gate_ft, self.text_ffn(norm_modulate(text, shift_ft, scale_ft)))


class SingleAttention(nn.Module):
    """Joint attention with one set of projections. Takes and returns the joint sequence, before gating."""

    def __init__(self, width: int, site: Site):
        super().__init__()
        self.joint = Projections(width, site.heads)
        self.attend = AttendPoint(site)

    def forward(self, x: Tensor, cond: BlockCondition, grid: TokenGrid) -> Tensor:
        """x (B, N + L, D) -> the same."""
        return self.through(x, cond, grid, self.joint.stream())

    def through(self, x: Tensor, cond: BlockCondition, grid: TokenGrid, joint: Stream) -> Tensor:
        """The same through other layers."""
        assert joint.out is not None
        text_len = x.shape[1] - grid.tokens
        return joint.out(_attend(self.attend, joint.split(x), joint.gain(), cond, grid, text_len))


class SingleStreamBlock(nn.Module):
    """One block that treats video and text tokens alike. Arguments as `DualStreamBlock`."""

    def __init__(self, width: int, inner: int, site: Site, modulation: str):
        super().__init__()
        self.modulation = BlockModulation(width, modulation)
        self.attention = SingleAttention(width, site)
        self.ffn = FeedForward(width, inner)

    def forward(self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """h (B, N, D) and text (B, L, D) -> the same."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(cond)
        x = torch.cat([h, text], dim=1)
        x = add_gated(x, gate_a, self.attention(norm_modulate(x, shift_a, scale_a), cond, grid))
        x = add_gated(x, gate_f, self.ffn(norm_modulate(x, shift_f, scale_f)))
        h, text = x.split([h.shape[1], text.shape[1]], dim=1)
        return h, text
