"""A method: one small class that changes how a network is run, and knows nothing of which network that is.

A method is a frozen dataclass: its fields are its settings, and whatever it remembers is in the state that it is handed.
It overrides those of the functions below that it needs; `nxt` in them is what would happen without it, the methods
inside of it included. A method that does not call `nxt` has skipped that work; one that does the work in its own way
says so with `here.changed(kernel)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from longtake.runtime.knobs import Knob
from longtake.runtime.looping import SamplingLoop
from longtake.runtime.nouns import AttnCall, Site, StepInfo, TokenGrid
from longtake.runtime.receipts import Receipt
from longtake.runtime.seam import Attend
from longtake.runtime.views import ModelView

RANKS = ("sampler", "guidance", "output", "range", "part", "tokens", "control", "attention", "linear", "observer")
"""From the outermost to the innermost; methods of one stack are sorted by it, whatever order they were named in."""
CACHES = ("output", "range", "part")
"""Ranks of methods that use again what was computed on earlier steps."""


@dataclass
class Here:
    """Where and when a method is called.

    Args:
        info: which forward of which step. site: which place; kind "model" for the network as a whole.
        view: the network. grid: box of its video tokens.
        state: the method's memory of this run, branch and site; empty at first.
        branch: its memory of this run and branch, shared by all sites.
        step: its memory of this step, shared by the step's branches and sites.
        receipt: what it has done so far.
        lse: in `attend`, whether whoever asked wants the log-sum-exp of the scores too.
        layout: of a block's video tokens, see `longtake.runtime.views.canonical`.
        other_way, work: what `changed` noted.
    """

    info: StepInfo
    site: Site
    view: ModelView
    grid: TokenGrid
    state: dict[str, Any]
    branch: dict[str, Any]
    step: dict[str, Any]
    receipt: Receipt
    layout: str = "flat"
    lse: bool = False
    other_way: bool = False
    work: int = 0

    @property
    def plan(self) -> Any:
        """What the method's `plan` said of this step."""
        return self.step["plan"]

    def changed(self, kernel: str | None = None, macs: int = 0) -> None:
        """Say that this call is computed in another way, by which kernel, and at what cost in multiply-accumulates.

        The cost is that of the method's own work: all of the call's when it does not call `nxt`, else what comes on top.
        """
        self.other_way = True
        self.work += macs
        if kernel is not None:
            self.receipt.kernels[kernel] += 1


Block = tuple[Tensor, Tensor | None]
"""Video tokens and text tokens, where a block has them."""


class Method:
    """Base of all methods. Everything passes through, unless it is overridden.

    Class attributes:
        name: as it is written on the command line.
        forms: settings, as they are written there, with which it acts at another level than with its defaults; each is a
            row of its own in the matrix of what goes with what.
        idle: what may be the reason when it did nothing, and what to do.
        knobs: settings that `longtake calibrate` searches; none for a method that there is nothing to calibrate in.
    """

    name: ClassVar[str]
    forms: ClassVar[tuple[str, ...]] = ()
    idle: ClassVar[str] = (
        "it matched no place of this network, or its settings never let it act; change them, leave it out, or allow methods "
        "that do nothing"
    )
    knobs: ClassVar[tuple[Knob, ...]] = ()

    def rank(self) -> str:
        """How far out it acts, one of RANKS."""
        raise NotImplementedError

    def owns(self) -> frozenset[str]:
        """What it must have alone, ranks again. Two methods that own the same are refused, as are a range and a part."""
        return frozenset()

    def check(self, view: ModelView) -> None:
        """Raise Unsupported if this network is none for the method. Called before anything is attached."""

    def conflict(self, other: "Method") -> str | None:
        """Why it cannot be used together with another method, or None; what both own is compared anyway."""
        return None

    def wants(self, site: Site) -> bool:
        """Whether the method has to do with a site of a kind for which it overrides the function below."""
        return True

    def acts_in(self, info: StepInfo) -> bool:
        """Whether it acts in a call at all. Caches do not in extra ones: what those compare would drown in their error."""
        return not (info.extra and self.rank() in CACHES)

    def before_step(self, here: Here, x: Tensor, loop: SamplingLoop) -> Tensor:
        """Move the sample (B, C, T, H, W) before our sampling loop makes a step from it; `here.changed()` says that it did.

        `loop` gives the deterministic step, its inverse, and predictions beside the ordinary ones.
        """
        return x

    def plan(self, here: Here) -> Any:
        """Decide once for a step, before its first branch; what it returns is `here.plan` for the rest of the step."""
        return None

    def predict(self, here: Here, nxt: Callable[[], Any]) -> Any:
        """Around a whole call of the network; returns what the network returns."""
        return nxt()

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[[Tensor, Tensor | None], Block]) -> Block:
        """Around a block: video tokens in `here.layout` and text tokens -> the same."""
        return nxt(h, text)

    def skips(self, here: Here) -> bool:
        """Whether `part` will not call `nxt` at this site. Asked before modules run that work for that part alone."""
        return False

    def part(self, here: Here, x: Tensor, nxt: Callable[[], Any]) -> Any:
        """Around an attention or a feed-forward network, whose output is not gated yet; a tensor or a tuple of them.

        x is the first tensor that the part is given.
        """
        return nxt()

    def attend(self, here: Here, call: AttnCall, nxt: Attend) -> Tensor | tuple[Tensor, Tensor]:
        """Around the attention itself, (B, H, S, D) as call.q.

        `nxt(call, lse=True)` gives (output, log-sum-exp of the scores); the receipt notes the kernel that made them. A
        method that computes in its own way returns such a pair where `here.lse` is set; one that returns what `nxt` gave
        it need not.
        """
        return nxt(call)

    def linear(self, site: Site, module: nn.Module) -> nn.Module | None:
        """What takes the place of a linear layer while the method is attached; None leaves it."""
        return None

    def report(self, receipt: Receipt, replaced: list[tuple[nn.Module, nn.Module]]) -> None:
        """Add to the receipt's notes at the beginning of a run: the layers that were replaced, and by what."""

    def guide(
        self, here: Here, cond: Tensor, null: Tensor, x: Tensor, nxt: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Around guidance: velocities with and without the prompt at the latents x -> the guided velocity."""
        return nxt(cond, null)

    def guides(self, info: StepInfo) -> bool:
        """Whether a step needs the prediction without the prompt at all."""
        return True

    def run_end(self, receipt: Receipt) -> None:
        """Add to the receipt's notes at the end of a run."""

    def config(self) -> dict[str, Any]:
        """Its settings."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def overrides(cls, name: str) -> bool:
        """Whether a function of this class is its own."""
        return getattr(cls, name) is not getattr(Method, name)

    def __str__(self) -> str:
        """As it is written on the command line, with the settings that differ from their defaults."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}  # type: ignore[arg-type]
        return self.name + (":" + ",".join(f"{k}={v}" for k, v in changed.items()) if changed else "")
