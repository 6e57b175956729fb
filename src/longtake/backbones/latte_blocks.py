"""The blocks of Latte (arXiv 2401.03048): attention over space, time or both, modulated by the condition.

Tokens stay in one layout, (B, F, N, D), through the whole network. A block's modulation, norms and linear layers do not
care which axis is attended over, so only queries, keys and values are ever laid out anew; the published code copies the
whole stream before and behind each temporal block instead, and repeats the condition once for every row.

    m(h) = LN(h) * (1 + scale) + shift, from the condition, as are the gates g1 and g2
    space, time or joint   h += g1 A(m1(h));                       h += g2 MLP(m2(h))
    serial     (V3)        h += g1 S(m1(h)); h += g1 T(m1(h));     h += g2 MLP(m2(h))
    parallel   (V4)        u = m1(h); h += g1 (S'(u) + T'(u));     h += g2 MLP(m2(h))

S' and T' of V4 are attentions of full width with half the heads, each twice as wide, which fits the printed number of
parameters; `half_width` gives each half of the channels instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from longtake.layers.attention import FeedForward
from longtake.layers.linear import Linear
from longtake.layers.modulation import ModulationProjection, add_gated, norm_modulate
from longtake.layers.rotary import rotate
from longtake.runtime import AttendPoint, AttnCall, Site, StepInfo, TokenGrid

PARTS = 6  # shift, scale, gate of the attention; shift, scale, gate of the feed-forward network
STREAMS = {"space": "spatial", "time": "temporal", "joint": "joint"}
KINDS = {
    "space": ("space",),
    "time": ("time",),
    "joint": ("joint",),
    "serial": ("space", "time"),
    "parallel": ("space", "time"),
}
"""Kinds of blocks, and the axes that each attends over."""
Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LatteCondition:
    """What every block is given besides the tokens.

    Args:
        total: (B, 1, D) float32, the condition of all frames alike; (B, F, D) where single images have their own.
        shared: (B, 6, D) float32, one modulation for all blocks (adaLN-single), or None when blocks project their own.
        text: (B, L, D), projected states for cross-attention, or None.
        text_mask: bool (B, 1, 1, 1, L), True = may be attended, or None = all.
        turns: complex64 (F, head_dim/2), rotary positions over time, or None.
        grid: the tokens of the whole clip, frames of single images included.
        video: how many of the frames are the clip; the rest are single images, which nothing attends to over time.
        info: which forward of which run, None outside one.
        time: (B, D) float32, the embedded timestep alone.
        sparse: grid of the tokens that sparse blocks work on at this noise level; None in a network without any.
        routing: what dynamic blocks decide by; None in a network without any.
    """

    total: Tensor
    shared: Tensor | None
    text: Tensor | None
    text_mask: Tensor | None
    turns: Tensor | None
    grid: TokenGrid
    video: int
    info: StepInfo | None
    time: Tensor
    sparse: TokenGrid | None = None
    routing: Any = None

    def of_video(self) -> "LatteCondition":
        """The same for the clip's frames alone."""
        grid = TokenGrid(self.video, self.grid.height, self.grid.width)
        return replace(self, total=self.total[:, :1], grid=grid)


class AxisAttention(nn.Module):
    """Self-attention of (B, F, N, D) over one axis: space (N), time (F) or both at once (joint).

    Args:
        width: features D of a token.
        inner: features of q, k and v, all heads together.
        site: where it is; its heads divide `inner`.
        axis: "space", "time" or "joint".
    """

    def __init__(self, width: int, inner: int, site: Site, axis: str) -> None:
        super().__init__()
        self.axis, self.heads = axis, site.heads
        self.qkv = Linear(width, 3 * inner)
        self.out = Linear(inner, width)
        self.attend = AttendPoint(site)

    def forward(self, u: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> the same."""
        return self.through(u, cond, self.qkv, self.out, self.heads)

    def through(self, u: Tensor, cond: LatteCondition, qkv: Layer, out: Layer, heads: int) -> Tensor:
        """The same through other projections, of so many heads: (..., D) -> (..., 3 inner), (..., inner) -> (..., D)."""
        b, f, n, _ = u.shape
        h, w = cond.grid.height, cond.grid.width
        if self.axis == "space":  # rows (B, F) of N
            rows, grid = u, TokenGrid(1, h, w)
        elif self.axis == "time":  # rows (B, N) of F
            rows, grid = u.transpose(1, 2), TokenGrid(f, 1, 1)
        else:  # rows (B, 1) of F N
            rows, grid = u.flatten(1, 2)[:, None], TokenGrid(f, h, w)
        projected = qkv(rows).flatten(0, 1).unflatten(-1, (3, heads, -1))
        q, k, v = (x.transpose(1, 2) for x in projected.unbind(2))  # (rows, H, S, d)
        if self.axis == "time" and cond.turns is not None:
            q, k = rotate(q, cond.turns), rotate(k, cond.turns)
        beside = n - h * w if self.axis == "space" else 0  # the condition, where it is tokens
        call = AttnCall(q, k, v, grid, beside, "last" if beside else "none")
        made = out(self.attend(call, cond.info).transpose(1, 2).flatten(2))
        made = made.view(*rows.shape[:3], -1)
        return made.transpose(1, 2) if self.axis == "time" else made.view(b, f, n, -1)


class CrossAttention(nn.Module):
    """Attention of every token to the text: (B, F, N, D) and (B, L, D) -> (B, F, N, D)."""

    def __init__(self, width: int, site: Site) -> None:
        super().__init__()
        self.heads = site.heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.out = Linear(width, width)
        self.attend = AttendPoint(site)

    def forward(self, h: Tensor, cond: LatteCondition) -> Tensor:
        """h (B, F, N, D) -> the same."""
        assert cond.text is not None
        q = self.q(h).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (x.transpose(1, 2) for x in self.kv(cond.text).unflatten(-1, (2, self.heads, -1)).unbind(2))
        call = AttnCall(q, k, v, cond.grid, cond.text.shape[1], "none", cond.text_mask)
        return self.out(self.attend(call, cond.info).transpose(1, 2).flatten(2).unflatten(1, h.shape[1:3]))


class LatteBlock(nn.Module):
    """One block.

    Args:
        width, inner: features of a token and of the feed-forward network.
        heads: of each attention; V4's two attentions have half of them each.
        kind: "space", "time", "joint", "serial" (V3) or "parallel" (V4).
        modulation: "block" (adaLN-Zero: a projection of its own), "shared" (adaLN-single: a table on top of the
            model's) or "none" (plain pre-norm with learned norms, for conditions that are tokens).
        layer, layers: its place in the order of execution.
        cross: attend to the text behind the self-attention.
        half_width: V4's attentions have half of the channels each.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        heads: int,
        kind: str,
        modulation: str,
        layer: int,
        layers: int,
        cross: bool = False,
        half_width: bool = False,
    ) -> None:
        super().__init__()
        self.kind = kind
        if kind == "parallel":
            heads //= 2
        attended = width // 2 if kind == "parallel" and half_width else width

        def site(what: str, axis: str, name: str) -> Site:
            return Site(
                f"attn.{what}", layer, layers, STREAMS[axis], f"blocks.{layer}.{name}", heads, attended // heads
            )

        self.projection = ModulationProjection(width, PARTS) if modulation == "block" else None
        self.table = nn.Parameter(torch.zeros(PARTS, width)) if modulation == "shared" else None
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=1e-6) for _ in range(2)]) if modulation == "none" else None
        self.attentions = nn.ModuleDict(
            {
                axis: AxisAttention(width, attended, site("self", axis, f"attentions.{axis}"), axis)
                for axis in KINDS[kind]
            }
        )
        self.cross = CrossAttention(width, site("cross", "space", "cross")) if cross else None
        self.ffn = FeedForward(width, inner, tanh=True)

    def forward(self, h: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> the same; single images pass a block over time unchanged."""
        if self.kind == "time" and h.shape[1] > cond.video:
            clip, images = h.split([cond.video, h.shape[1] - cond.video], dim=1)
            return torch.cat([self(clip, cond.of_video()), images], dim=1)
        parts = self.modulation(cond)
        h = self.exchange(h, parts, cond)
        return self.leave(h, self.ffn(self.enter(h, parts, 1)), parts, 1)

    def exchange(self, h: Tensor, parts: tuple[Tensor, ...] | None, cond: LatteCondition) -> Tensor:
        """All attention of the block, in which tokens learn of one another: (B, F, N, D) -> the same."""
        if self.kind == "serial":
            h = self.leave(h, self.attentions["space"](self.enter(h, parts, 0), cond), parts, 0)
            h = self.leave(h, self._along(self.enter(h, parts, 0), cond, "time"), parts, 0)
        elif self.kind == "parallel":
            u = self.enter(h, parts, 0)
            h = self.leave(h, self.attentions["space"](u, cond) + self._along(u, cond, "time"), parts, 0)
        else:
            h = self.leave(h, self._along(self.enter(h, parts, 0), cond, self.kind), parts, 0)
        return h if self.cross is None else h + self.cross(h, cond)

    def modulation(self, cond: LatteCondition) -> tuple[Tensor, ...] | None:
        """Six float32 tensors (B, F or 1, 1, D), or None where the block is plain."""
        if self.projection is not None:
            made = self.projection(cond.total)  # (B, F or 1, 6, D)
        elif self.table is not None and cond.shared is not None:
            made = (cond.shared + self.table.float())[:, None]
        else:
            return None
        return made.unsqueeze(3).unbind(2)

    def enter(self, h: Tensor, parts: tuple[Tensor, ...] | None, branch: int) -> Tensor:
        """What the attention (branch 0) or the feed-forward network (1) is given."""
        if parts is None:
            assert self.norms is not None
            return self.norms[branch](h)
        return norm_modulate(h, parts[3 * branch], parts[3 * branch + 1])

    def leave(self, h: Tensor, update: Tensor, parts: tuple[Tensor, ...] | None, branch: int) -> Tensor:
        """What it made, through its gate, onto the stream."""
        return h + update if parts is None else add_gated(h, parts[3 * branch + 2], update)

    def _along(self, u: Tensor, cond: LatteCondition, axis: str) -> Tensor:
        """Attention over an axis that holds time: among the clip's frames; every single image is left to itself."""
        attention = self.attentions[axis]
        if axis == "space" or u.shape[1] == cond.video:
            return attention(u, cond)
        clip, images = u.split([cond.video, u.shape[1] - cond.video], dim=1)
        over_clip = attention(clip, cond.of_video())
        if axis == "time":
            return torch.cat([over_clip, torch.zeros_like(images)], dim=1)
        alone = attention(images.flatten(0, 1)[:, None], cond).squeeze(1).unflatten(0, images.shape[:2])
        return torch.cat([over_clip, alone], dim=1)
