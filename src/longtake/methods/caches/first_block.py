"""First-block cache: the first block says whether the rest is worth computing.

Known from ParaAttention and as `FirstBlockCache` in diffusers; no paper. The first block always runs. If what it adds to
the stream has changed little since the last full step, relative to its size,

    mean |r - r_full| / mean |r_full| < threshold,     r = what block 0 adds to the video tokens,

the other blocks are not run, and what they added on that step is added again. The decision is taken on a step's first
branch and holds for the others. Where a network adds to the stream between its first blocks (Latte), the blocks up to
there run too.

A batch decides as one, so that a clip may come out otherwise alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longtake.errors import BadInput, Unsupported
from longtake.runtime.knobs import Knob
from longtake.runtime.method import Block, Here, Method
from longtake.runtime.nouns import Site
from longtake.runtime.ranges import Span, enter, leave, skip
from longtake.runtime.views import ModelView, canonical


@dataclass(frozen=True)
class FirstBlock(Method):
    """Residual cache with a decision at run time.

    Args:
        threshold: relative change below which the rest is reused; 0 = never.
        warmup: full steps at the beginning. last_full: compute the last step, where the number of steps is known.
        most: steps that are skipped in a row at most; 0 = any number.
    """

    name: ClassVar[str] = "first-block"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("threshold", (0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.5)),)

    threshold: float = 0.1
    warmup: int = 1
    last_full: bool = True
    most: int = 0

    def __post_init__(self) -> None:
        for name in ("threshold", "warmup", "most"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"first-block: {name} is {getattr(self, name)}; use 0 or more")

    def rank(self) -> str:
        return "range"

    def owns(self) -> frozenset[str]:
        return frozenset({"range"})

    def wants(self, site: Site) -> bool:
        return site.kind == "block"

    def check(self, view: ModelView) -> None:
        if len(view.blocks) <= max(view.first_safe, 1):
            raise Unsupported(f"first-block: {len(view.blocks)} blocks leave nothing to skip; use another method")

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[..., Block]) -> Block:
        span = Span(max(here.view.first_safe, 1), here.site.n_layers - 1)
        kept = here.branch
        if here.site.layer == 0:
            out = nxt(h, text)
            added = canonical(out[0], here.layout, here.grid) - canonical(h, here.layout, here.grid)
            if "reuse" not in here.step:
                here.step["reuse"] = self._little(here, added)
            if not here.step["reuse"]:
                kept["first"] = added
            return out
        if here.site.layer not in span:
            return nxt(h, text)
        if here.step.get("reuse") and "rest" in kept:
            if here.site.layer == span.last:
                kept["in a row"] = kept.get("in a row", 0) + 1
            return skip(here, span, h, text, lambda: kept["rest"])
        enter(here, "rest's input", span, h, text)
        out = nxt(h, text)
        rest = leave(here, "rest's input", span, out)
        if rest is not None:
            kept["rest"], kept["in a row"] = rest, 0
        return out

    def _little(self, here: Here, added: Tensor) -> bool:
        """Whether the first block says that little has changed."""
        kept, info = here.branch, here.info
        if info.s < self.warmup or "first" not in kept or "rest" not in kept:
            return False
        if self.last_full and info.S is not None and info.s == info.S - 1:
            return False
        if self.most and kept.get("in a row", 0) >= self.most:
            return False
        before = kept["first"].float()
        change = float((added.float() - before).abs().mean() / before.abs().mean().clamp(min=1e-12))
        here.receipt.notes.setdefault("change", []).append(round(change, 5))
        return change < self.threshold
