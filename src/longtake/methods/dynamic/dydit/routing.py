"""Routers of width and of tokens, and what they decided in one call of the network.

Width is decided from the embedded time alone, so it is the same for all samples of one noise level and can be known
before sampling; tokens are decided one by one. Gates are straight-through Gumbel-sigmoids in training and z > 0 afterwards
(`longtake.layers.gates`). arXiv 2410.03456; biases and temperature as in the published code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.layers.gates import decided_gates, drawn_gates, settled_gates
from longtake.layers.linear import Linear
from longtake.layers.modulation import linear_fp32

TEMPERATURE = 5.0
WIDTH_BIAS, TOKEN_BIAS = 15.0, 35.0  # logits at the start, near enough: everything is on


class WidthRouter(nn.Module):
    """Which of `units` heads, or equal groups of features, are on at a noise level; the first always is.

    Args:
        width: features of the embedded time.
        units: 2 or more.
        number: its own among the network's routers, for its noise.

    Raises:
        BadInput: one unit alone.
    """

    steers = True

    def __init__(self, width: int, units: int, number: int) -> None:
        super().__init__()
        if units < 2:
            raise BadInput("an attention of 1 head has no width to change; use a network of 2 heads or more")
        self.number, self.units = number, units
        self.linear = nn.Linear(width, units - 1)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.constant_(self.linear.bias, WIDTH_BIAS)

    def forward(self, time: Tensor) -> Tensor:
        """Embedded time (B, D) -> logits (B, units - 1) float32, of all but the first."""
        return linear_fp32(self.linear, time)


class TokenRouter(nn.Module):
    """Which tokens go through the feed-forward network: Linear(D, D/16), ReLU, Linear(D/16, 1).

    Args:
        width: D. number: as `WidthRouter`.
    """

    steers = True

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.number = number
        self.enter, self.leave = Linear(width, max(1, width // 16)), Linear(max(1, width // 16), 1)
        for layer in (self.enter, self.leave):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.leave.bias, TOKEN_BIAS)

    def forward(self, h: Tensor) -> Tensor:
        """Tokens (B, S, D) behind the attention, not normed -> logits (B, S)."""
        return self.leave(self.enter(h).relu()).squeeze(-1)


@dataclass
class Spent:
    """What one attention or feed-forward network did in a call.

    Args:
        macs: of its gated work, all of it.
        width: share of its heads or groups, (B,) or one number.
        tokens: share of its tokens, (B,) or one number.
    """

    macs: int
    width: Tensor | float
    tokens: Tensor | float = 1.0


@dataclass
class Routing:
    """Decisions of one call.

    Args:
        time: (B, D) float32, embedded.
        seeds: of each sample's noise; None = decide without noise and without gradients.
        whole: everything is on.
        settled: decide without noise, with gradients.
        temperature: of the gates' gradients.
        moment: the timestep of all samples, None where they differ.
        widths: number of a router -> what is on for all samples; None where samples differ, or gradients are wanted.
        spent: what was done, by the name of the attention or feed-forward network.
    """

    time: Tensor
    seeds: Sequence[int] | None = None
    whole: bool = False
    settled: bool = False
    temperature: float = TEMPERATURE
    moment: float | None = None
    widths: dict[int, tuple[int, ...]] | None = None
    spent: dict[str, Spent] = field(default_factory=dict)

    def width(self, router: WidthRouter) -> Tensor:
        """Gates (B, units) of heads or groups, exactly 0 or 1."""
        gates = self._gates(router(self.time), router.number)
        return torch.cat([torch.ones_like(gates[:, :1]), gates], dim=1)

    def tokens(self, router: TokenRouter, h: Tensor) -> Tensor:
        """Gates (B, S) of tokens (B, S, D), exactly 0 or 1."""
        return self._gates(router(h), router.number)

    def _gates(self, logits: Tensor, number: int) -> Tensor:
        if self.whole:
            return torch.ones_like(logits, dtype=torch.float32)
        if self.settled:
            return settled_gates(logits, self.temperature)
        if self.seeds is None:
            return decided_gates(logits)
        seeds = [(seed + (number + 1) * 0x9E3779B97F4A7C15) % 2**63 for seed in self.seeds]
        return drawn_gates(logits, self.temperature, [torch.Generator().manual_seed(seed) for seed in seeds])
