"""Δ-DiT: on some steps a range of blocks is not run, and what it added to the stream on an earlier step is added again.

Paper: "Δ-DiT: A Training-Free Acceleration Method Tailored for Diffusion Transformers", arXiv 2406.01125. With L blocks,
N_c of them skipped, a full step keeps D_front = h_(N_c) - h_0 and D_back = h_L - h_(L - N_c). A step that is not full runs

    early (s < b)   blocks 1 to L - N_c, then adds D_back      sampling draws the outline, which the front blocks make
    late  (s >= b)  adds D_front, then blocks N_c + 1 to L     sampling draws the detail, which the rear blocks make

A step costs 1 - N_c / L when it is not full, so T steps with a full one every N cost
1 - (N_c / L) (1 - ceil(T / N) / T) of a dense run (one full step more with `last_full`).

Where the paper is silent: step s is full if s mod N == 0, and so is the last one (`last_full`); b is half of the steps;
`store="active"` keeps one of the two differences, and computes the first late step in full; `order` 1 to 3 forecasts the
differences as TaylorSeer does instead of holding them. Text tokens that blocks change have differences too. Where a
network adds to the stream between its first blocks (Latte), the front range begins behind them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longtake.errors import BadInput, Unsupported
from longtake.runtime.calibrators import forecast, known, remember
from longtake.runtime.knobs import Knob
from longtake.runtime.method import Block, Here, Method
from longtake.runtime.nouns import Site
from longtake.runtime.ranges import Span, enter, leave, skip
from longtake.runtime.schedule import Schedule
from longtake.runtime.views import ModelView

STORES = ("both", "active")


@dataclass(frozen=True)
class DeltaDiT(Method):
    """Cache of what the front or the rear blocks add.

    Args:
        interval: N, a full step every so many.
        skipped: N_c, blocks that are skipped; 0 = as many as give a run the `speedup`.
        speedup: wanted ratio of a dense run's blocks to this one's, for `skipped=0`.
        boundary: b, the step at which the front range takes over; -1 = half of the steps.
        boundary_noise: the same as a noise level in [0, 1], in place of `boundary`; -1 = none.
        swapped: front blocks early and rear blocks late, the control of the paper.
        store: "both" differences, or the "active" one alone.
        order: 0 holds the differences, 1 to 3 forecast them.
        last_full: compute the last step.

    Raises:
        BadInput: a setting out of its range.
    """

    name: ClassVar[str] = "delta-dit"
    knobs: ClassVar[tuple[Knob, ...]] = (
        Knob("speedup", (1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5)),
        Knob("interval", (2, 3, 4), ordered=False),  # fewer blocks are skipped on more steps, for the same speedup
    )

    interval: int = 2
    skipped: int = 0
    speedup: float = 1.5
    boundary: int = -1
    boundary_noise: float = -1.0
    swapped: bool = False
    store: str = "both"
    order: int = 0
    last_full: bool = True

    def __post_init__(self) -> None:
        Schedule(self.interval)
        if self.skipped < 0:
            raise BadInput(f"delta-dit: skipped is {self.skipped}; use the number of blocks, or 0 for a speedup")
        if not self.skipped and not self.speedup >= 1:
            raise BadInput(f"delta-dit: speedup is {self.speedup}; use at least 1")
        if self.store not in STORES:
            raise BadInput(f"delta-dit: store is {self.store!r}; use one of {', '.join(STORES)}")
        if not 0 <= self.order <= 3:
            raise BadInput(f"delta-dit: order is {self.order}; use 0 to 3")
        if self.boundary_noise > 1:
            raise BadInput(f"delta-dit: boundary_noise is {self.boundary_noise}; use a noise level from 0 to 1")

    def rank(self) -> str:
        return "range"

    def owns(self) -> frozenset[str]:
        return frozenset({"range"})

    def wants(self, site: Site) -> bool:
        return site.kind == "block"

    def check(self, view: ModelView) -> None:
        blocks, safe = len(view.blocks), view.first_safe
        if self.skipped > blocks - max(safe, 1):
            raise Unsupported(
                f"delta-dit: {self.skipped} of {blocks} blocks of a {view.family.name} cannot be skipped; use at most "
                f"{blocks - max(safe, 1)}"
            )

    def schedule(self) -> Schedule:
        """When everything is computed, but for what `store` adds."""
        return Schedule(self.interval, last=self.last_full)

    def skipped_of(self, blocks: int, steps: int, safe: int = 0) -> int:
        """N_c: as given, or L (1 - 1/g) / (1 - full steps / T), rounded, at most L - 1.

        Raises:
            BadInput: a speedup that no number of blocks gives.
        """
        if self.skipped:
            return self.skipped
        reused = 1 - len(self.schedule().steps(steps)) / steps
        wanted = round(blocks * (1 - 1 / self.speedup) / reused) if reused else 0
        most = blocks - max(safe, 1)
        if self.speedup > 1 and not 0 < wanted <= most:
            raise BadInput(
                f"delta-dit: no number of blocks makes {steps} steps {self.speedup:g} times as fast with a full step every "
                f"{self.interval}; use a larger interval, or a speedup of at most {1 / (1 - most / blocks * reused):.2f}"
            )
        return wanted

    def plan(self, here: Here) -> "Step":
        """What is skipped on a step, and what is kept of it."""
        info, safe, blocks = here.info, here.view.first_safe, len(here.view.blocks)
        if info.S is None and (not self.skipped or (self.boundary < 0 and self.boundary_noise < 0)):
            raise Unsupported(
                "delta-dit: the number of steps is not known here; set skipped, and boundary or boundary_noise"
            )
        if self.boundary_noise >= 0:
            early = info.noise > self.boundary_noise
        else:
            early = info.s < (round(0.5 * (info.S or 0)) if self.boundary < 0 else self.boundary)
        count = self.skipped_of(blocks, info.S or 1, safe)
        spans = {"front": Span(safe, safe + count - 1), "back": Span(blocks - count, blocks - 1)} if count else {}
        active = "back" if early != self.swapped else "front"
        full = self.schedule().full(info) or (self.store == "active" and not here.branch.get(active))
        here.receipt.notes.setdefault("full" if full else active, []).append(info.s)
        kept = spans if self.store == "both" else {name: span for name, span in spans.items() if name == active}
        return Step(None if full else active, spans.get(active), kept)

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[..., Block]) -> Block:
        step, layer, at = here.plan, here.site.layer, float(here.info.s)
        keep = step.keep
        if step.skipped is not None and step.span is not None:
            kept = here.branch.get(step.skipped, {})
            if layer not in step.span:
                return nxt(h, text)
            if known(kept):
                return skip(here, step.span, h, text, lambda: forecast(kept, at))
            keep = {step.skipped: step.span}  # this branch has forgotten, so it computes once more
        for side, span in keep.items():
            enter(here, side, span, h, text)
        out = nxt(h, text)
        for side, span in keep.items():
            added = leave(here, side, span, out)
            if added is not None:
                remember(here.branch.setdefault(side, {}), at, added, self.order, "taylor", None)
                for other in {"front", "back"} - {side} if self.store == "active" else ():
                    here.branch.pop(other, None)
        return out


@dataclass(frozen=True)
class Step:
    """What Δ-DiT does on one step.

    Args:
        skipped: "front" or "back", None on a full step. span: the blocks of that range, None when there are none.
        keep: ranges whose differences are kept on a full step.
    """

    skipped: str | None
    span: Span | None
    keep: dict[str, Span]
