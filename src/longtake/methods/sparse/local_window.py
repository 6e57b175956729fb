"""Attention within a window around each video token, as a mask over the dense attention.

The plainest sparse attention: a query sees the keys at most `frames`, `rows` and `columns` away, and all text tokens;
text tokens see everything. It is computed densely under a mask, so it shows what the window costs in quality and not
what it would save in time; the receipt notes the share of pairs that are seen (`density`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.runtime.knobs import Knob
from longtake.runtime.method import Here, Method
from longtake.runtime.nouns import AttnCall, Site, TokenGrid


@dataclass(frozen=True)
class LocalWindow(Method):
    """Window attention.

    Args:
        frames, rows, columns: how far a token sees each way; -1 = everything along that axis.
    """

    name: ClassVar[str] = "local-window"
    knobs: ClassVar[tuple[Knob, ...]] = (
        Knob("rows", (16, 12, 8, 6, 4, 3, 2, 1)),
        Knob("columns", (16, 12, 8, 6, 4, 3, 2, 1)),
        Knob("frames", (16, 12, 8, 6, 4, 3, 2, 1)),
    )

    frames: int = -1
    rows: int = 2
    columns: int = 2

    def __post_init__(self) -> None:
        if min(self.frames, self.rows, self.columns) < -1:
            raise BadInput("local-window: a window of less than -1; use 0 or more, or -1 for everything along an axis")

    def rank(self) -> str:
        return "attention"

    def owns(self) -> frozenset[str]:
        return frozenset({"attention"})

    def wants(self, site: Site) -> bool:
        return site.kind in ("attn.self", "attn.joint")

    def attend(self, here: Here, call: AttnCall, nxt: Callable[[AttnCall], Tensor]) -> Tensor:
        seen = self.mask(call.grid, call.q.device)
        if bool(seen.all()):
            return nxt(call)
        video, text = call.grid.tokens, call.q.shape[2] - call.grid.tokens
        window = torch.ones(video + text, video + text, dtype=torch.bool, device=call.q.device)
        at = slice(text, None) if call.text_at == "first" else slice(video)
        window[at, at] = seen
        mask = window if call.mask is None else _both(window, call.mask)
        here.changed("masked")
        here.receipt.notes["density"] = float(window.float().mean())
        return nxt(replace(call, mask=mask))

    def mask(self, grid: TokenGrid, device: torch.device) -> Tensor:
        """bool (N, N), True = seen."""
        places = torch.cartesian_prod(*(torch.arange(n, device=device) for n in grid)).view(-1, 3)
        apart = (places[:, None] - places[None]).abs()
        reach = torch.tensor(
            [n if n >= 0 else max(grid) for n in (self.frames, self.rows, self.columns)], device=device
        )
        return (apart <= reach).all(-1)


def _both(window: Tensor, mask: Tensor) -> Tensor:
    """A window and a mask of the network, bool or added to the scores."""
    if mask.dtype == torch.bool:
        return window & mask
    return mask.masked_fill(~window, float("-inf"))
