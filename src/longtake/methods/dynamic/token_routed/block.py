"""A routed block: what its gate decides, and the block for the tokens that are picked.

In training everything is computed and masked. In evaluation only the tokens that take the block are: their queries, output
projections and feed-forward network, with keys and values of all. The two are the same function because a token's way
through a block depends on other tokens in one place alone, the keys and values, which are made before anything is added.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from longtake.backbones.latte_blocks import AxisAttention, LatteBlock, LatteCondition
from longtake.backbones.waver_blocks import BlockCondition, DualStreamBlock, SingleStreamBlock, Stream
from longtake.errors import Unsupported
from longtake.layers.attention import attend
from longtake.layers.gates import decided_gates, drawn_gates
from longtake.layers.linear import linear_outputs
from longtake.layers.modulation import add_gated, norm_modulate
from longtake.layers.rotary import norm_rotate, rotate
from longtake.layers.token_gates import TokenGate
from longtake.layers.token_rows import flat_rows, pad_rows
from longtake.runtime import TokenGrid

Noise = torch.Generator | Sequence[torch.Generator] | None


class RoutingGate(nn.Module):
    """Whether tokens take the block: tokens (B, ..., D) and time (B, cond_dim) -> (B, ...), exactly 0 or 1."""

    steers = True

    def __init__(self, width: int, cond_dim: int) -> None:
        super().__init__()
        self.logits = TokenGate(width, 1, cond_dim)
        self.generator: Noise = None

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """h (B, N, D) or (B, F, N, D)."""
        z = self.logits(h, time.view(len(time), *[1] * (h.ndim - 2), -1)).squeeze(-1)
        return drawn_gates(z, 1.0, self.generator) if self.training else decided_gates(z)


class TokenRoutedBlock(nn.Module):
    """A Latte's block that each token takes or passes by; called as the block itself is.

    Args:
        block: a LatteBlock of kind space, time, joint or parallel; it is taken over, not changed.
        cond_dim: features of the embedded timestep.
        gather: in evaluation compute only the tokens that take it; False computes all of them, always.

    Raises:
        Unsupported: another block.
    """

    takes: tuple[type[nn.Module], ...] = (LatteBlock,)

    def __init__(self, block: nn.Module, cond_dim: int, gather: bool = True) -> None:
        super().__init__()
        if type(block) not in self.takes:
            names = " or a ".join(kind.__name__ for kind in self.takes)
            raise Unsupported(f"{type(self).__name__} cannot route a {type(block).__name__}: give a {names}")
        if isinstance(block, LatteBlock) and block.kind == "serial":
            raise Unsupported(
                "a LatteBlock of kind 'serial' attends over time to what it added over space, which skipped tokens lack; "
                "use space, time, joint or parallel"
            )
        self.block, self.gather = block, gather
        self.gate = RoutingGate(_width(block), cond_dim)

    def forward(self, h: Tensor, cond: LatteCondition) -> Tensor:
        """h (B, F, N, D) -> the same."""
        assert isinstance(self.block, LatteBlock)
        gates = self.decide(h, cond)
        if self.gather and not self.training and cond.video == h.shape[1]:  # single images beside the clip: masked
            return _latte(self.block, h, gates > 0, cond) if gates.any() else h
        return _masked(h, self.block(h, cond), gates)

    def decide(self, h: Tensor, cond: LatteCondition | BlockCondition) -> Tensor:
        """Gates (B, ...) of the tokens; their mean is noted where the network asks for it."""
        gates = self.gate(h, cond.time)
        if isinstance(cond.routing, list):
            cond.routing.append(gates.mean())
        return gates


class TokenRoutedStreamBlock(TokenRoutedBlock):
    """The same of a block in which video and text attend jointly; text tokens always take it.

    Args:
        block: a DualStreamBlock or a SingleStreamBlock. cond_dim, gather: as `TokenRoutedBlock`.
    """

    takes = (DualStreamBlock, SingleStreamBlock)

    def forward(  # type: ignore[override]
        self, h: Tensor, text: Tensor, cond: BlockCondition, grid: TokenGrid
    ) -> tuple[Tensor, Tensor]:
        """h (B, N, D) and text (B, L, D) -> the same."""
        gates = self.decide(h, cond)
        if self.gather and not self.training:
            run = _dual if isinstance(self.block, DualStreamBlock) else _single
            return run(self.block, h, gates > 0, text, cond)  # type: ignore[arg-type]
        video, text = self.block(h, text, cond, grid)
        return _masked(h, video, gates), text


@contextmanager
def routing(network: nn.Module, generator: Noise = None) -> Iterator[list[Tensor]]:
    """Calls of a network inside draw their gates from a generator, and leave them behind.

    Args:
        network: holds routed blocks. generator: one, or one for each sample; None = torch's own.

    Yields:
        A list that each call of a routed block adds its gates to, (B, ...), with their gradient: the mean of all of
        them is the share of tokens that take blocks, for the loss of a budget.

    Raises:
        Unsupported: no routed block.
    """
    gates = [module for module in network.modules() if isinstance(module, RoutingGate)]
    if not gates:
        raise Unsupported(f"{type(network).__name__} holds no routed block; convert it with to_token_routed")
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for gate in gates:
            handle = gate.register_forward_hook(lambda _, __, made: seen.append(made))
            stack.callback(handle.remove)
            stack.callback(setattr, gate, "generator", gate.generator)
            gate.generator = generator
        yield seen


def _width(block: nn.Module) -> int:
    """Features of a video token."""
    ffn = block.video_ffn if isinstance(block, DualStreamBlock) else block.ffn
    return ffn.up.in_features  # type: ignore[union-attr]


def _masked(h: Tensor, made: Tensor, gates: Tensor) -> Tensor:
    """What was made where gates are open, h elsewhere, exactly."""
    return torch.lerp(h, made, gates[..., None].to(h.dtype))


# ------------------------------------------------------------------------------------------------------------- Latte


def _latte(block: LatteBlock, h: Tensor, active: Tensor, cond: LatteCondition) -> Tensor:
    """h (B, F, N, D), active bool (B, F, N) -> as h."""
    parts = block.modulation(cond)
    own = None if parts is None else tuple(part.expand(*h.shape[:3], -1)[active] for part in parts)
    u, few = block.enter(h, parts, 0), h[active]
    first, *second = (_along(attention, u, active, cond) for attention in block.attentions.values())  # type: ignore[arg-type]
    few = block.leave(few, sum(second, first), own, 0)
    if block.cross is not None:
        rows = active.flatten(1)
        few = few + flat_rows(block.cross(pad_rows(few, rows)[:, None], cond)[:, 0], rows)
    few = block.leave(few, block.ffn(block.enter(few, own, 1)), own, 1)
    return h.index_put((active,), few)


def _along(attention: AxisAttention, u: Tensor, active: Tensor, cond: LatteCondition) -> Tensor:
    """Attention over an axis for picked queries: u (B, F, N, D) -> (n, D), in the order of ``u[active]``."""
    places = torch.arange(active.numel(), device=u.device).view(active.shape)
    if attention.axis == "time":
        u, active, places = (x.transpose(1, 2) for x in (u, active, places))
    joint = attention.axis == "joint"
    rows, picked = (x.flatten(1, 2) if joint else x.flatten(0, 1) for x in (u, active))  # (rows, S, D), (rows, S)
    inner = attention.qkv.out_features // 3
    heads = attention.heads
    keys, values = linear_outputs(attention.qkv, rows, inner, 3 * inner).unflatten(-1, (2, heads, -1)).unbind(2)
    own = linear_outputs(attention.qkv, rows[picked], 0, inner)
    queries = own.new_zeros(*picked.shape, inner).index_put(
        (picked,), own
    )  # zeros elsewhere, so that rows can be turned
    q, k, v = (x.transpose(1, 2) for x in (queries.unflatten(-1, (heads, -1)), keys, values))
    if attention.axis == "time" and cond.turns is not None:
        q, k = rotate(q, cond.turns), rotate(k, cond.turns)
    made = attention.out(_attended(q, k, v, picked))
    if attention.axis != "time":
        return made
    return made[places[active].argsort()]  # from column by column to frame by frame


def _attended(q: Tensor, k: Tensor, v: Tensor, picked: Tensor, mask: Tensor | None = None) -> Tensor:
    """q, k, v (R, H, S, d), of which the queries picked bool (R, S) count -> (n, H d)."""
    few = pad_rows(q.transpose(1, 2).flatten(2)[picked], picked).unflatten(-1, q.shape[1::2]).transpose(1, 2)
    return flat_rows(attend(few, k, v, mask).transpose(1, 2).flatten(2), picked)


# ------------------------------------------------------------------------------------------------ video beside text


def _dual(
    block: DualStreamBlock, h: Tensor, active: Tensor, text: Tensor, cond: BlockCondition
) -> tuple[Tensor, Tensor]:
    """h (B, N, D), active bool (B, N), text (B, L, D) -> as h and text."""
    video_parts, text_parts = block.video_modulation(cond), block.text_modulation(cond)
    streams = block.attention.video.stream(), block.attention.text.stream()
    entered = norm_modulate(h, *video_parts[:2]), norm_modulate(text, *text_parts[:2])
    picked = [active, torch.ones_like(text[..., 0], dtype=torch.bool)]
    qkv = torch.cat([_project(x, s, own) for x, s, own in zip(entered, streams, picked, strict=True)], dim=1)
    gain = torch.cat([s.gain().expand(x.shape[1], -1, -1, -1) for s, x in zip(streams, entered, strict=True)])
    made = _joint(qkv, gain, torch.cat(picked, dim=1), cond)
    few = h[active]
    own = [part.expand_as(h)[active] for part in video_parts]
    few = add_gated(few, own[2], block.attention.video.out(made[:, : h.shape[1]][active]))  # type: ignore[misc]
    few = add_gated(few, own[5], block.video_ffn(norm_modulate(few, own[3], own[4])))
    video = h.index_put((active,), few)
    if block.text_ffn is None or block.attention.text.out is None:
        return video, text
    text = add_gated(text, text_parts[2], block.attention.text.out(made[:, h.shape[1] :]))
    return video, add_gated(text, text_parts[5], block.text_ffn(norm_modulate(text, *text_parts[3:5])))


def _single(
    block: SingleStreamBlock, h: Tensor, active: Tensor, text: Tensor, cond: BlockCondition
) -> tuple[Tensor, Tensor]:
    """As `_dual`, with one set of weights."""
    x = torch.cat([h, text], dim=1)
    picked = torch.cat([active, torch.ones_like(text[..., 0], dtype=torch.bool)], dim=1)
    parts, stream = block.modulation(cond), block.attention.joint.stream()
    own = [part.expand_as(x)[picked] for part in parts]
    gain = stream.gain().expand(x.shape[1], -1, -1, -1)
    made = _joint(_project(norm_modulate(x, *parts[:2]), stream, picked), gain, picked, cond)
    few = add_gated(x[picked], own[2], block.attention.joint.out(made[picked]))  # type: ignore[misc]
    x = x.index_put((picked,), add_gated(few, own[5], block.ffn(norm_modulate(few, own[3], own[4]))))
    h, text = x.split([h.shape[1], text.shape[1]], dim=1)
    return h, text


def _project(x: Tensor, stream: Stream, picked: Tensor) -> Tensor:
    """q of picked tokens and zeros, k and v of all: x (B, S, D), picked bool (B, S) -> (B, S, 3, H, head_dim)."""
    layer: Any = stream.qkv
    inner = layer.out_features // 3
    own = linear_outputs(layer, x[picked], 0, inner)
    queries = own.new_zeros(*picked.shape, inner).index_put((picked,), own)
    both = torch.cat([queries, linear_outputs(layer, x, inner, 3 * inner)], dim=-1)
    return both.unflatten(-1, (3, stream.heads, -1))


def _joint(qkv: Tensor, gain: Tensor, picked: Tensor, cond: BlockCondition) -> Tensor:
    """Attention of picked tokens over the joint sequence: (B, S, 3, H, head_dim) -> (B, S, H head_dim), zeros elsewhere."""
    qk, v = qkv.split([2, 1], dim=2)
    q, k, v = (x.transpose(1, 2) for x in (*norm_rotate(qk, gain, cond.rotary).unbind(2), v.squeeze(2)))
    few = _attended(q, k, v, picked, cond.mask)
    return few.new_zeros(*picked.shape, few.shape[-1]).index_put((picked,), few)
