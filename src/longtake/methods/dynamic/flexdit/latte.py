"""FlexDiT of Latte: its blocks with pooled attention, attention between two grids, and sparse-dense modules.

Tokens stay (B, F, N, D). S are sparse tokens on (F', h', w'), Y the dense ones at the entry of a module; m is a block's
own modulated norm. Attention over space: a sparse frame and the F/F' dense frames it stands for see one another. Over
time: generating, the keys are m(Y) averaged over each cell; recovering, a dense token sees the sparse ones of its cell.
Both are plain self-attention when the two grids are equal. In variant 3 the second attention of a block, over time, stays
within the queries' own tokens.
"""

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from longtake.backbones.latte_blocks import AxisAttention, LatteBlock, LatteCondition
from longtake.layers.rotary import rotary_line, rotate
from longtake.methods.dynamic.flexdit.density import Layout
from longtake.methods.dynamic.flexdit.pieces import arrange, centres, fusion, linear_of, pool, spread
from longtake.runtime import AttendPoint, AttnCall, TokenGrid


class PooledAttention(nn.Module):
    """What attention is when its map is flat: the mean value of all that is attended to, the same for all who attend.

    Projected after the mean, which is the same (the projections are linear) at a cost of 2 D^2 in place of 2 N D^2.
    """

    def __init__(self, attention: AxisAttention) -> None:
        super().__init__()
        self.axis = attention.axis
        self.value = linear_of(attention.qkv, 2, 3)
        self.out = attention.out

    def forward(self, u: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> (B, F or 1, N or 1, D), to be added to all."""
        axes = {"space": (2,), "time": (1,), "joint": (1, 2)}[self.axis]
        return self.out(self.value(u.mean(axes, keepdim=True)))


class CrossAttention(nn.Module):
    """Attention of the tokens of one grid to those of another, over space, time or both.

    Args:
        attention: whose weights it takes, with q apart from k and v.
        generate: sparse tokens attend to dense ones; False: dense ones to sparse ones.
    """

    def __init__(self, attention: AxisAttention, generate: bool) -> None:
        super().__init__()
        self.axis, self.heads, self.generate = attention.axis, attention.heads, generate
        self.q, self.kv = linear_of(attention.qkv, 0, 1), linear_of(attention.qkv, 1, 3)
        self.out = attention.out
        self.attend = AttendPoint(replace(attention.attend.site, kind="attn.cross"))

    def forward(self, u: Tensor, seen: Tensor, own: LatteCondition, other: LatteCondition) -> Tensor:
        """u on the grid of `own`, seen on the grid of `other`, both (B, F, N, D) -> as u."""
        if self.axis == "time":
            return self._over_time(u, seen, own, other)
        groups = 1 if self.axis == "joint" else min(own.grid.frames, other.grid.frames)
        rows, states = (x.unflatten(1, (groups, -1)).flatten(2, 3) for x in (u, seen))
        q, k, v = self._split(self.q(rows), self.kv(states))
        return self._attend(q, k, v, own).view(u.shape)

    def _over_time(self, u: Tensor, seen: Tensor, own: LatteCondition, other: LatteCondition) -> Tensor:
        """Each place of the queries' grid for itself."""
        there = TokenGrid(other.grid.frames, own.grid.height, own.grid.width)
        if self.generate:
            kv = self.kv(pool(seen, other.grid, there))
        else:
            kv = spread(self.kv(seen), there, other.grid)
        q, k, v = self._split(self.q(u).transpose(1, 2), kv.transpose(1, 2))
        if own.turns is not None and other.turns is not None:
            q, k = rotate(q, own.turns), rotate(k, other.turns)
        made = self._attend(q, k, v, own).view(u.shape[0], -1, u.shape[1], u.shape[-1])
        return made.transpose(1, 2)

    def _split(self, q: Tensor, kv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, R, S, D) and (B, R, S', 2 D) -> three of (B R, H, S, d)."""
        queries = q.flatten(0, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = kv.flatten(0, 1).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return queries, keys.transpose(1, 2), values.transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, own: LatteCondition) -> Tensor:
        made = self.attend(AttnCall(q, k, v, own.grid), own.info)
        return self.out(made.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """A block whose tokens are on one grid and whose keys and values come from another; one shift and scale for both.

    Args:
        block: whose weights it takes.
        generate: see `CrossAttention`.
    """

    def __init__(self, block: LatteBlock, generate: bool) -> None:
        super().__init__()
        self.kind, self.block = block.kind, block
        for axis, attention in block.attentions.items():
            if not (block.kind == "serial" and axis == "time"):
                block.attentions[axis] = CrossAttention(attention, generate)  # type: ignore[arg-type]

    def forward(self, h: Tensor, seen: Tensor, own: LatteCondition, other: LatteCondition) -> Tensor:
        """h on the grid of `own`, seen on that of `other` -> as h."""
        block = self.block
        parts = block.modulation(own)
        u, states = block.enter(h, parts, 0), block.enter(seen, parts, 0)
        if self.kind == "serial":
            h = block.leave(h, block.attentions["space"](u, states, own, other), parts, 0)
            made = block.attentions["time"](block.enter(h, parts, 0), own)
        else:
            first, *second = (attention(u, states, own, other) for attention in block.attentions.values())
            made = sum(second, first)
        h = block.leave(h, made, parts, 0)
        if block.cross is not None:
            h = h + block.cross(h, own)
        return block.leave(h, block.ffn(block.enter(h, parts, 1)), parts, 1)


class SparseDenseModule(nn.Module):
    """Pool, generate, sparse blocks, recover, dense blocks: dense tokens in, dense tokens out.

    Args:
        generate, sparse, dense: its blocks of each role, in order. recover: the one that recovers.
        width: D.
    """

    def __init__(
        self,
        generate: list[LatteBlock],
        sparse: list[LatteBlock],
        recover: LatteBlock,
        dense: list[LatteBlock],
        width: int,
    ) -> None:
        super().__init__()
        self.generate = nn.ModuleList(CrossBlock(block, True) for block in generate)
        self.sparse = nn.ModuleList(sparse)
        self.from_sparse, self.from_dense = fusion(width)
        self.recover = CrossBlock(recover, False)
        self.dense = nn.ModuleList(dense)

    def forward(self, h: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> the same."""
        few = on_grid(cond, cond.grid if cond.sparse is None else cond.sparse)
        s = pool(h, cond.grid, few.grid)
        for block in self.generate:
            s = block(s, h, few, cond)
        for block in self.sparse:
            s = block(s, few)
        h = self.from_sparse(spread(s, cond.grid, few.grid)) + self.from_dense(h)
        h = self.recover(h, s, cond, few)
        for block in self.dense:
            h = block(h, cond)
        return h


def convert_blocks(blocks: nn.ModuleList, layout: Layout, width: int) -> nn.ModuleList:
    """The blocks of a Latte in a layout's roles; they are taken over, and changed."""
    bottom, made = arrange(blocks, layout, partial(SparseDenseModule, width=width))  # type: ignore[arg-type]
    for block in bottom if layout.pooled_bottom else []:
        for axis, attention in block.attentions.items():  # type: ignore[union-attr]
            block.attentions[axis] = PooledAttention(attention)  # type: ignore[index]
    return made


def on_grid(cond: LatteCondition, grid: TokenGrid) -> LatteCondition:
    """The condition for tokens on a coarser grid; rotary positions are the mean ones of its cells."""
    turns = cond.turns
    if turns is not None and grid.frames != cond.grid.frames:
        places = centres(cond.grid.frames, grid.frames).to(turns.device)
        turns = rotary_line(places, 2 * turns.shape[-1], device=turns.device)
    return replace(cond, grid=grid, video=grid.frames, turns=turns)
