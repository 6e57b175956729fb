"""What it costs: the paper's formulas for images, a count of any converted network, and the tokens of a run's calls."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from longtake.methods.dynamic.flexdit.density import STEPS, Density, Layout
from longtake.runtime import TokenGrid
from longtake.runtime.macs import counting
from longtake.runtime.receipts import Counts, Receipt
from longtake.runtime.views import view_of


def dit_macs(
    tokens: int, width: int, depth: int, layout: Layout | None = None, sparse: int = 0, mean_first: bool = True
) -> int:
    """Of one image through a DiT or its conversion, adaLN included, softmax not; arXiv 2412.06028.

    With C the width, N dense and M sparse tokens: dense block 12NC^2 + 2N^2C + 6C^2; bottom 8NC^2 + 2C^2 + 6C^2, or
    10NC^2 + 6C^2 with the values projected before the mean; generate 10MC^2 + 2NC^2 + 2MNC + 6C^2; recover
    12NC^2 + 2MC^2 + 2MNC + 6C^2; embedding 16NC, head 32NC + 2C^2, time C^2 + 256C.

    Args:
        tokens: N. width: C. depth: blocks. layout: None = the dense network.
        sparse: M. mean_first: how the bottom is counted.
    """
    n, m, c = tokens, sparse, width
    own = 6 * c * c
    costs = {
        "dense": 12 * n * c * c + 2 * n * n * c + own,
        "bottom": (8 * n * c * c + 2 * c * c if mean_first else 10 * n * c * c) + own,
        "generate": 10 * m * c * c + 2 * n * c * c + 2 * m * n * c + own,
        "sparse": 12 * m * c * c + 2 * m * m * c + own,
        "recover": 12 * n * c * c + 2 * m * c * c + 2 * m * n * c + own,
    }
    costs["top"] = costs["dense"]
    roles = ["dense"] * depth if layout is None else layout.roles()
    if layout is not None and not layout.pooled_bottom:
        costs["bottom"] = costs["dense"]
    return sum(costs[role] for role in roles) + 48 * n * c + 2 * c * c + c * c + 256 * c


@torch.no_grad()
def mac_report(
    network: nn.Module, latents: Sequence[int], levels: Sequence[float], given: dict[str, Any] | None = None
) -> list[int]:
    """Multiply-accumulates of a network's call at each noise level, counted on calls of random latents.

    Levels that share a sparse grid are counted once. Average over the sampling steps that are taken, not over stages.

    Args:
        network: any of ours; those without stages cost the same at all levels.
        latents: shape (C, T, H, W) of one sample.
        levels: noise levels in [0, 1].
        given: further arguments of its forward by name, such as text.
    """
    weight, view = next(network.parameters()), view_of(network)
    x = torch.randn(1, *latents, dtype=weight.dtype, generator=torch.Generator().manual_seed(0)).to(weight.device)
    known: dict[Any, int] = {}
    counted = []
    for level in levels:
        timestep = torch.full((1,), level * STEPS, device=weight.device)
        density = getattr(network, "density", None)
        key = None if density is None else density.grid(level, view.grid({"latents": x}))
        if key not in known:
            with counting(view) as counter:
                network(x, timestep, **(given or {}))
            known[key] = counter.costs.total
        counted.append(known[key])
    return counted


class Calls:
    """The calls of a converted network without gradients: noise level, dense and sparse grid of each."""

    MOST = 100_000  # calls remembered until somebody asks

    def __init__(self) -> None:
        self.seen: list[tuple[float, TokenGrid, TokenGrid]] = []

    def see(self, timestep: Tensor, dense: TokenGrid, sparse: TokenGrid) -> TokenGrid:
        """Remember a call; returns its sparse grid."""
        if not torch.is_grad_enabled() and len(self.seen) < self.MOST:
            self.seen.append((float(timestep.reshape(-1)[0]) / STEPS, dense, sparse))
        return sparse

    def receipt(self, layout: Layout, density: Density) -> Receipt | None:
        """Of the calls until now, which are forgotten; None when there were none.

        Its notes have a row for each noise level: how many calls, the sparse grid, and the tokens of every block.
        """
        seen, self.seen = self.seen, []
        if not seen:
            return None
        roles, steps = layout.roles(), []
        for noise, dense, sparse in dict.fromkeys(seen):
            tokens = [sparse.tokens if role in ("generate", "sparse") else dense.tokens for role in roles]
            calls = seen.count((noise, dense, sparse))
            steps.append({"noise": round(noise, 4), "calls": calls, "sparse": list(sparse), "tokens": tokens})
        sites = sum(role in ("generate", "sparse", "recover") for role in roles)
        branches = {"all": Counts(changed=len(seen))}
        config = {"layout": str(layout), "density": density.to_json()}
        return Receipt("flexdit", config, sites, branches=branches, notes={"steps": steps})
