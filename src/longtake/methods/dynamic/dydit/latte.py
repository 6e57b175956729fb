"""DyDiT of Latte: every attention over space or time chooses its heads, every feed-forward network its groups and tokens."""

from functools import partial

from torch import Tensor, nn

from longtake.backbones.latte_blocks import AxisAttention, LatteBlock, LatteCondition
from longtake.methods.dynamic.dydit.feeding import DynamicFeed
from longtake.methods.dynamic.dydit.heads import Heads
from longtake.methods.dynamic.dydit.routing import Spent


class DynamicAttention(nn.Module):
    """Attention over one axis, with the heads that are on.

    Args:
        attention: whose weights it takes.
        width: D. name: under which a call's `Routing` keeps what was done. number: of its router.
    """

    def __init__(self, attention: AxisAttention, width: int, name: str, number: int) -> None:
        super().__init__()
        self.name, self.attention = name, attention
        self.heads = attention.heads
        self.choice = Heads(width, attention.heads, attention.qkv.out_features // (3 * attention.heads), number)

    def forward(self, u: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> the same."""
        own, routing = self.attention, cond.routing
        _, f, n, d = u.shape
        seen = {"space": n, "time": f, "joint": f * n}[own.axis]
        inner = own.qkv.out_features // 3
        whole = f * n * inner * (4 * d + 2 * seen)
        active = self.choice.active(routing)
        cut = self.choice.cut((own.qkv, own.out), routing)
        if active is None or cut is None:
            gates = routing.width(self.choice.router)
            routing.spent[self.name] = Spent(whole, gates.mean(1))
            return own.through(u, cond, own.qkv, self.choice.masked(own.out, gates), own.heads)
        routing.spent[self.name] = Spent(whole, len(active) / own.heads)
        qkv, out = cut
        return own.through(u, cond, qkv, out, len(active))


class DynamicBlock(nn.Module):
    """A block of dynamic parts; its cross-attention, if it has one, stays as it is.

    Args:
        block: whose weights it takes; it is changed.
        layer: its place. width: D. heads: of the network. number: of its first router. tokens: as `DynamicFeed`.
    """

    def __init__(self, block: LatteBlock, layer: int, width: int, heads: int, number: int, tokens: bool) -> None:
        super().__init__()
        for axis, attention in list(block.attentions.items()):
            block.attentions[axis] = DynamicAttention(attention, width, f"{layer}.{axis}", number)  # type: ignore[arg-type]
            number += 1
        self.block = block
        self.feed = DynamicFeed(block.ffn, heads, f"{layer}.ffn", number, tokens)
        del block.ffn

    def forward(self, h: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> the same."""
        parts = self.block.modulation(cond)
        assert parts is not None
        h = self.block.exchange(h, parts, cond)
        shift, scale = (part.flatten(1, 2) for part in parts[3:5])
        return self.block.leave(h, self.feed(h, shift, scale, cond.routing), parts, 1)


def convert_blocks(blocks: nn.ModuleList, width: int, heads: int, tokens: bool) -> nn.ModuleList:
    """The blocks of a Latte as dynamic ones; they are taken over, and changed. Each has four numbers for its routers."""
    make = partial(DynamicBlock, width=width, heads=heads, tokens=tokens)
    return nn.ModuleList(make(block, i, number=4 * i) for i, block in enumerate(blocks))  # type: ignore[arg-type]
