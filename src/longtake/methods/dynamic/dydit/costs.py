"""What it costs: the paper's formulas, the term of the loss that holds a budget, and the calls of a run."""

from typing import Any

import torch
from torch import Tensor

from longtake.methods.dynamic.dydit.routing import Routing, Spent
from longtake.runtime.receipts import Counts, Receipt

WEIGHT = 2.0
STEPS = 1000
"""A network is given 1000 t."""


def dit_macs(tokens: int, width: int) -> tuple[int, int]:
    """Of one image in a block's attention, 4NC^2 + 2N^2C, and in its feed-forward network, 8NC^2; arXiv 2410.03456.

    Args:
        tokens: N. width: C.
    """
    n, c = tokens, width
    return 4 * n * c * c + 2 * n * n * c, 8 * n * c * c


def budget_term(share: Tensor, target: float) -> Tensor:
    """2 (share - target)^2; the share is the batch's mean, so that samples may differ."""
    return WEIGHT * (share - target).square()


class Calls:
    """The calls of a dynamic network without gradients: noise levels, and what was decided."""

    MOST = 100_000  # calls remembered until somebody asks

    def __init__(self) -> None:
        self.seen: list[tuple[float, dict[str, Spent]]] = []

    def see(self, moments: list[float], routing: Routing) -> None:
        """Remember a call, whose `spent` is filled while it runs."""
        if len(self.seen) < self.MOST:
            self.seen.append((sum(moments) / len(moments) / STEPS, routing.spent))

    def receipt(self, config: dict[str, Any]) -> Receipt | None:
        """Of the calls until now, which are forgotten; None when there were none.

        Its notes have a row for each noise level: how many calls, the share of the gated work that was done, and by the
        name of each attention and feed-forward network the shares of its width and of its tokens.
        """
        seen, self.seen = [(noise, spent) for noise, spent in self.seen if spent], []
        if not seen:
            return None
        steps = []
        for noise in dict.fromkeys(noise for noise, _ in seen):
            calls = [spent for other, spent in seen if other == noise]
            width = {name: _mean([spent[name].width for spent in calls]) for name in calls[0]}
            tokens = {name: _mean([spent[name].tokens for spent in calls]) for name in calls[0] if "ffn" in name}
            steps.append(
                {
                    "noise": round(noise, 4),
                    "calls": len(calls),
                    "share": _mean([share_of(spent) for spent in calls]),
                    "width": width,
                    "tokens": tokens,
                }
            )
        share = sum(row["share"] * row["calls"] for row in steps) / len(seen)
        changed = share < 1
        counts = Counts(changed=len(seen)) if changed else Counts(computed=len(seen))
        notes = {"share": share, "steps": steps}
        return Receipt("dydit", config, len(seen[0][1]), branches={"all": counts}, notes=notes)


def share_of(spent: dict[str, Spent]) -> Tensor:
    """Of the gated work of a call that was done, the mean over its samples: a scalar, with gradients if there are any."""
    done = sum(one.macs * (one.width * one.tokens) for one in spent.values())
    return torch.as_tensor(done, dtype=torch.float32).mean() / sum(one.macs for one in spent.values())


def _mean(values: list[Tensor | float]) -> float:
    return sum(float(torch.as_tensor(value).mean()) for value in values) / len(values)
