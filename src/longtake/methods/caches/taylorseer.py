"""TaylorSeer: forecasts what a network would make from what it made on earlier steps, instead of reusing it.

Paper: "From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers", arXiv 2503.06923. On a full step
everything is computed, and values and their finite differences are kept:

    F_0 = y;  F_(i+1) = (F_i - F_i of the full step before) / d;  k steps later:  y ~ sum_i F_i k^i / i!

What is kept and forecast is, by `granularity`,
    module   the output of every attention and feed-forward network before its gate, as published. Modulation, norms and
             gates of the present step are applied to the forecast.
    block    what every block adds to the stream
    range    what a range of blocks adds to the stream, all of them unless `first` and `last` say otherwise
    output   what the network returns; the least memory and the least work

Full steps: s < warmup, then every `interval`-th. The decision is taken once a step and holds for all branches, each of
which has its own memory of (order + 1) tensors a place.

Where the paper is silent: the last step is full (`last_full`); distances are step indices, or the timestep or noise level
(`distance`); `basis="newton"` is exact for polynomials up to `order` at unequal distances; forecasts are added up in
float32 and kept in the network's dtype, or in `factor_dtype`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longtake.errors import BadInput, Unsupported
from longtake.runtime.calibrators import BASES, forecast, known, remember
from longtake.runtime.knobs import Knob
from longtake.runtime.method import Block, Here, Method
from longtake.runtime.nouns import Site
from longtake.runtime.ranges import Span, enter, leave, skip
from longtake.runtime.schedule import Schedule
from longtake.runtime.trees import pack, unpack
from longtake.runtime.views import ModelView

GRANULARITIES = {"module": "part", "block": "range", "range": "range", "output": "output"}
DISTANCES = ("index", "t", "sigma")
DTYPES = {"": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TaylorSeer(Method):
    """Forecasting cache.

    Args:
        interval: N, a full step every so many.
        order: m, 0 to 3; 0 is plain reuse.
        warmup: w, full steps at the beginning.
        granularity: "module", "block", "range" or "output".
        basis: "taylor" or "newton".
        last_full: compute the last step, where the number of steps is known.
        distance: between steps, "index", "t" or "sigma".
        mask: which steps are full, one 0 or 1 for each, in place of interval, warmup and last_full.
        first, last: the range of blocks, in the order of execution; -1 = the first and the last that can be skipped.
        factor_dtype: "" (the network's), "float32", "bfloat16" or "float16".

    Raises:
        BadInput: a setting out of its range.
    """

    name: ClassVar[str] = "taylorseer"
    forms: ClassVar[tuple[str, ...]] = ("granularity=range", "granularity=output")
    knobs: ClassVar[tuple[Knob, ...]] = (
        Knob("interval", (2, 3, 4, 5, 6, 7, 8)),
        Knob("order", (0, 1, 2, 3), ordered=False),  # costs next to nothing; which is best depends on the interval
    )

    interval: int = 5
    order: int = 1
    warmup: int = 1
    granularity: str = "module"
    basis: str = "taylor"
    last_full: bool = True
    distance: str = "index"
    mask: str = ""
    first: int = -1
    last: int = -1
    factor_dtype: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 3:
            raise BadInput(f"taylorseer: order is {self.order}; use 0 to 3")
        for name, known_ones in (
            ("granularity", GRANULARITIES),
            ("basis", BASES),
            ("distance", DISTANCES),
            ("factor_dtype", DTYPES),
        ):
            if getattr(self, name) not in known_ones:
                raise BadInput(f"taylorseer: {name} is {getattr(self, name)!r}; use one of {', '.join(known_ones)}")
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        """When everything is computed."""
        return Schedule(self.interval, self.warmup, self.last_full, self.mask)

    @property
    def reuses(self) -> bool:
        """Whether any step may be forecast; nothing is kept otherwise."""
        return "0" in self.mask if self.mask else self.interval > 1

    def rank(self) -> str:
        return GRANULARITIES[self.granularity]

    def owns(self) -> frozenset[str]:
        return frozenset({self.rank()})

    def wants(self, site: Site) -> bool:
        kinds = {"output": "model", "block": "block", "range": "block"}
        if self.granularity == "module":
            return site.kind.startswith("attn") or site.kind == "ffn"
        return site.kind == kinds[self.granularity]

    def check(self, view: ModelView) -> None:
        if self.granularity == "range":
            self.span(view.first_safe, len(view.blocks)).check(view)
        if self.granularity == "module" and not view.parts:
            raise Unsupported(f"taylorseer: no attention or feed-forward network is known of {view.family.name}")

    def span(self, safe: int, blocks: int) -> Span:
        """The range of blocks."""
        return Span(safe if self.first < 0 else self.first, blocks - 1 if self.last < 0 else self.last)

    def plan(self, here: Here) -> bool:
        """Whether the step is full."""
        full = self.schedule.full(here.info)
        if full:
            here.receipt.notes.setdefault("full_steps", []).append(here.info.s)
        return full

    def predict(self, here: Here, nxt: Callable[[], Any]) -> Any:
        if not self.reuses:
            return nxt()
        form, made = pack(self._forecast_or(here, nxt))
        return unpack(form, [one.clone() for one in made])  # whose caller may write into it

    def part(self, here: Here, x: Tensor, nxt: Callable[[], Any]) -> Any:
        return self._forecast_or(here, nxt) if self.reuses else nxt()

    def skips(self, here: Here) -> bool:
        return not here.plan and known(here.state)

    def _forecast_or(self, here: Here, nxt: Callable[[], Any]) -> Any:
        """A forecast where the step is not full, or what is computed, which is kept."""
        if self.skips(here):
            return unpack(here.state["form"], forecast(here.state, self._position(here)))
        made = nxt()
        here.state["form"], values = pack(made)
        remember(here.state, self._position(here), values, self.order, self.basis, DTYPES[self.factor_dtype])
        return made

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[..., Block]) -> Block:
        layer = here.site.layer
        span = Span(layer, layer)
        if self.granularity == "range":
            span = self.span(here.view.first_safe, here.site.n_layers)
        if layer not in span or not self.reuses:
            return nxt(h, text)
        name = f"range {span.first}"
        kept = here.branch.setdefault(name, {})
        if not here.plan and known(kept):
            return skip(here, span, h, text, lambda: forecast(kept, self._position(here)))
        enter(here, name, span, h, text)
        out = nxt(h, text)
        added = leave(here, name, span, out)
        if added is not None:
            remember(kept, self._position(here), added, self.order, self.basis, DTYPES[self.factor_dtype])
        return out

    def _position(self, here: Here) -> float:
        if self.distance == "t":
            return here.info.t
        if self.distance == "sigma":
            if here.info.sigma is None:
                raise Unsupported(
                    "taylorseer: distance is 'sigma' and the scheduler has no noise level; use 'index' or 't'"
                )
            return here.info.sigma
        return float(here.info.s)
