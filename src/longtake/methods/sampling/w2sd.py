"""W2SD: before a step, denoise with a strong prediction and go back with a weak one; what remains points to the data.

Paper: "Weak-to-Strong Diffusion with Reflection", arXiv 2502.00473 (Algorithm 1). D_s is one deterministic step of the
sampler t -> t' with the strong prediction, I_w its inverse t' -> t with the weak one:

    reflect   x~ = I_w(D_s(x));     then the ordinary step from x~                                          (Algorithm 1)
    to first order   x~ = x + c (score_strong - score_weak), c > 0                                            (Theorem 1)

With two equal predictions the round trip ends near where it began. With two unlike ones the gap that remains points from
the weak to the strong distribution, and on towards the data where weak errs about twice as much as strong in the same
direction. In flow matching, with dt = sigma' - sigma: y = x + dt v_s(x), x~ = y - dt v_w(y). In DDIM, with (a, b) and
(a', b') for t and t': y = a' x0_s(x) + b' e_s(x), x~ = a (y - b' e) / a' + b e with e = e_w(y). Weak is told the timestep
t, although y is at t'. In general the inverse holds what the network predicts, see `longtake.diffusion.reversing`.

Cost: a reflected step asks for three predictions in place of one, T + 2 lam in a run of T steps; fair comparisons are at
equal predictions (`equal_evaluations`). Guidance makes each of them two, and weak with guidance 1 is one.

Where the paper is silent:
- lam = T/4, rounded down, and those are the first steps, at high noise. `late` puts them last, where they do nothing.
- The last step is never reflected, nor one behind which another network takes over (Wan 2.2).
- `inverse="implicit"` solves I_w exactly, as the fixed point of x~ = (y - push * w(x~)) / keep in `rounds` predictions.
- `strength` g: x + g (x~ - x).
- Solvers of several steps begin anew at x~, so that they make steps of first order while there is reflection.
- Caches do nothing in the two predictions of the round trip: their error is larger than the difference of strong and weak.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.runtime.looping import ReversibleStep, SamplingLoop, Variant
from longtake.runtime.method import CACHES, Block, Here, Method
from longtake.runtime.nouns import AttnCall, Site
from longtake.runtime.seam import Attend
from longtake.runtime.switching import (
    Pairs,
    adapted_layers,
    layer_at,
    match_weights,
    other_layers,
    other_strength,
    other_weights,
    read_weights,
)
from longtake.runtime.views import ModelView

STRONG, WEAK = "w2sd.strong", "w2sd.weak"
"""Branches of the two predictions; of further rounds of an implicit inverse: "w2sd.weak.2", ..."""
PAIRS = ("guidance", "prompt", "weights", "adapter", "method")
INVERSES = ("explicit", "implicit")
Predict = Callable[[Tensor], Tensor]


def reflect(
    x: Tensor,
    step: ReversibleStep,
    strong: Predict,
    weak: Sequence[Predict],
    *,
    strength: float = 1.0,
    clamp: Callable[[Tensor, bool], Tensor] = lambda x, after: x,
) -> Tensor:
    """One round trip of a sample.

    Args:
        x: (B, C, T, H, W), the scheduler's sample.
        step: the deterministic step and its inverse.
        strong: sample -> prediction of the kind that the step takes. weak: likewise, one for each round of the inverse.
        strength: g; 0 leaves x, 1 is the round trip.
        clamp: (sample, whether it is behind the step) -> the sample with what is given of the clip put back.

    Returns:
        x~, of the same shape and at the same noise level.
    """
    y = clamp(step.forward(x, strong(x)), True)
    back = y
    for predict in weak:
        back = clamp(step.back(y, predict(back)), False)
    return back if strength == 1 else x + strength * (back - x)


def equal_evaluations(steps: int) -> tuple[int, int]:
    """Steps and lam that cost no more predictions than plain sampling: half of the steps, half of these reflected.

    Args:
        steps: of plain sampling, at least 4.

    Returns:
        (T, lam) with T = 2 lam and T + 2 lam = 4 * floor(steps / 4): 50 -> (24, 12), 48 predictions.

    Raises:
        BadInput: fewer than 4 steps.
    """
    if steps < 4:
        raise BadInput(f"{steps} steps leave nothing to reflect at equal cost; use at least 4")
    lam = steps // 2 // 2
    return 2 * lam, lam


@dataclass
class _Held:
    """What one network's sides are made of, found when the method is attached."""

    weights: Pairs = ()
    adapters: Sequence[Any] = ()
    layers: Sequence[tuple[nn.Module, str, nn.Module, nn.Module]] = ()


@dataclass(frozen=True)
class W2SD(Method):
    """Reflection between a strong and a weak prediction.

    The ordinary steps stay as the pipeline makes them. `pair` fills in what is not given, and the settings of several
    pairs may be given together.

    Args:
        pair: "guidance": weak_guidance 1. "prompt": needs weak_prompt. "weights": needs weak_weights, or `network`.
            "adapter": strong_adapter 1.5, weak_adapter -1.5. "method": needs weak_method.
        lam: number of reflected steps; -1 = a quarter of all, 0 = none.
        strength: g, any number; 1 is the paper's.
        inverse: "explicit", or "implicit" in `rounds` predictions, 1 to 20; 1 round is explicit.
        late: reflect the last lam steps before the very last, in place of the first.
        strong_guidance, weak_guidance: strength of guidance, any number, 1 = none; None = the run's own.
        weak_prompt: in place of the run's prompt, of which it is the raw form. Write %2C for a comma on the command line.
        weak_weights: folder of a pipeline or a network, or a .safetensors file, with weaker weights of the same network,
            such as an earlier checkpoint.
        strong_adapter, weak_adapter: factor on what LoRA or another adapter of PEFT adds, any number; None = as it is.
        weak_method: a method that acts on the weak side alone, as on the command line but with "/" in place of commas:
            "local-window:frames=0/rows=1". Quantisation, tokens, attention.
        network: the weaker network itself in place of weak_weights, or a pipeline that holds it; Python only.

    Raises:
        BadInput: a setting out of its range, a pair without what it needs, or a weak method of another kind.
    """

    name: ClassVar[str] = "w2sd"

    pair: str = "guidance"
    lam: int = -1
    strength: float = 1.0
    inverse: str = "explicit"
    rounds: int = 3
    late: bool = False
    strong_guidance: float | None = None
    weak_guidance: float | None = None
    weak_prompt: str = ""
    weak_weights: str = ""
    strong_adapter: float | None = None
    weak_adapter: float | None = None
    weak_method: str = ""
    network: InitVar[Any] = None

    def __post_init__(self, network: Any) -> None:
        for setting, known in (("pair", PAIRS), ("inverse", INVERSES)):
            if getattr(self, setting) not in known:
                raise BadInput(f"w2sd: {setting} is {getattr(self, setting)!r}; use one of {', '.join(known)}")
        for setting, low, high in (("lam", -1, 1000), ("rounds", 1, 20)):
            if not low <= getattr(self, setting) <= high:
                raise BadInput(f"w2sd: {setting} is {getattr(self, setting)}; use {low} to {high}")
        needs = {"prompt": "weak_prompt", "weights": "weak_weights", "method": "weak_method"}.get(self.pair)
        if needs and not getattr(self, needs) and not (needs == "weak_weights" and network is not None):
            raise BadInput(f"w2sd: pair={self.pair} needs {needs}; give it, or use another pair")
        for setting, value in (
            ("weak_prompt", _decoded(self.weak_prompt)),
            ("_weak", _weak_method(self.weak_method)),
            ("_other", network),
            ("_held", WeakKeyDictionary()),
        ):
            object.__setattr__(self, setting, value)

    # ------------------------------------------------------------------------------------------------- what it goes with

    def rank(self) -> str:
        return "sampler"

    def owns(self) -> frozenset[str]:
        return frozenset({"sampler"})

    def wants(self, site: Site) -> bool:
        return site.kind == "model" or (self._weak is not None and self._weak.wants(site))

    def conflict(self, other: Method) -> str | None:
        if other.overrides("guide") or other.overrides("guides"):
            if self._guidance != (None, None):
                return "one sets the strength of guidance by which the two sides of the other differ; use another pair"
        if other.overrides("linear"):
            if self.weak_weights or self._other is not None:
                return "one replaces the layers whose weights the other exchanges; leave one of them out"
            if self._weak is not None and self._weak.overrides("linear"):
                return f"one replaces layers, and the weak side of the other is {self._weak.name}, which does too"
        return None

    def check(self, view: ModelView) -> None:
        """Read weaker weights, find adapters, make other layers: all that a side is made of. Nothing is in place yet."""
        network, held = view.network, _Held()
        if self._other is not None:
            other = self._other if isinstance(self._other, nn.Module) else getattr(self._other, view.model)
            held.weights = match_weights(network, other.state_dict(), "w2sd's weaker network")
        elif self.weak_weights:
            weights = read_weights(self.weak_weights, network, view.model)
            held.weights = match_weights(network, weights, f"'{self.weak_weights}'")
        if self._adapters != (None, None):
            held.adapters = adapted_layers(network, "w2sd:pair=adapter")
        if self._weak is not None:
            self._weak.check(view)
            held.layers = _replaced(self._weak, view)
        self._held[network] = held

    # ---------------------------------------------------------------------------------------------------------- reflection

    @property
    def _guidance(self) -> tuple[float | None, float | None]:
        """Strengths of guidance of the strong and the weak side."""
        weak = 1.0 if self.pair == "guidance" and self.weak_guidance is None else self.weak_guidance
        return self.strong_guidance, weak

    @property
    def _adapters(self) -> tuple[float | None, float | None]:
        """Factors on the adapters of the strong and the weak side."""
        own = self.strong_adapter, self.weak_adapter
        usual = (1.5, -1.5) if self.pair == "adapter" else (None, None)
        return own[0] if own[0] is not None else usual[0], own[1] if own[1] is not None else usual[1]

    def steps(self, total: int) -> range:
        """Which of a run's steps are reflected; not the last one.

        Args:
            total: number of steps, at least 1.
        """
        lam = min(total // 4 if self.lam < 0 else self.lam, total - 1)
        return range(total - 1 - lam, total - 1) if self.late else range(lam)

    def before_step(self, here: Here, x: Tensor, loop: SamplingLoop) -> Tensor:
        info, notes = here.info, here.receipt.notes
        if self.strength == 0 or info.S is None or info.s not in self.steps(info.S):
            return x
        if loop.hands_over():
            notes.setdefault("left_out", []).append(info.s)
            return x
        held, rounds = self._held[here.view.network], 1 if self.inverse == "explicit" else self.rounds
        guidance, adapters = self._guidance, self._adapters

        def strong(x: Tensor) -> Tensor:
            with _side(_Held(adapters=held.adapters), adapters[0]):
                return loop.predict(x, Variant(STRONG, guidance[0]))

        def weak(number: int) -> Predict:
            branch = WEAK if number == 1 else f"{WEAK}.{number}"

            def predict(x: Tensor) -> Tensor:
                with _side(held, adapters[1]):
                    return loop.predict(x, Variant(branch, guidance[1], self.weak_prompt or None))

            return predict

        made = reflect(
            x,
            loop.step,
            strong,
            [weak(number) for number in range(1, rounds + 1)],
            strength=self.strength,
            clamp=lambda x, after: loop.clamp(x, after=after),
        )
        here.changed()
        notes.setdefault("reflected_steps", []).append(info.s)
        return made

    # ------------------------------------------------------------------------------------------ a method on the weak side

    def _on(self, here: Here) -> Method:
        """The method that acts in a call, which is none but on the weak side."""
        return self._weak if self._weak is not None and here.info.branch.startswith(WEAK) else _NOTHING

    def plan(self, here: Here) -> Any:
        return None if self._weak is None else self._weak.plan(here)

    def predict(self, here: Here, nxt: Callable[[], Any]) -> Any:
        return self._on(here).predict(here, nxt)

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[[Tensor, Tensor | None], Block]) -> Block:
        return self._on(here).block(here, h, text, nxt)

    def skips(self, here: Here) -> bool:
        return self._on(here).skips(here)

    def part(self, here: Here, x: Tensor, nxt: Callable[[], Any]) -> Any:
        return self._on(here).part(here, x, nxt)

    def attend(self, here: Here, call: AttnCall, nxt: Attend) -> Tensor | tuple[Tensor, Tensor]:
        return self._on(here).attend(here, call, nxt)

    # ------------------------------------------------------------------------------------------------------------- written

    def config(self) -> dict[str, Any]:
        given = {} if self._other is None else {"network": type(self._other).__name__}
        return {**super().config(), **given}

    def __str__(self) -> str:
        return super().__str__().replace(f"weak_prompt={self.weak_prompt}", f"weak_prompt={_encoded(self.weak_prompt)}")


_NOTHING = Method()


@contextmanager
def _side(held: _Held, adapter: float | None) -> Iterator[None]:
    """Within the block the network is that of one side."""
    with ExitStack() as entered:
        if held.weights:
            entered.enter_context(other_weights(held.weights))
        if held.layers:
            entered.enter_context(other_layers(held.layers))
        if adapter is not None:
            entered.enter_context(other_strength(held.adapters, adapter))
        yield


def _replaced(method: Method, view: ModelView) -> list[tuple[nn.Module, str, nn.Module, nn.Module]]:
    """The layers that a method replaces, see `longtake.runtime.switching.other_layers`."""
    found = []
    for name, layer in view.linears.items() if method.overrides("linear") else ():
        new = method.linear(Site("linear", 0, 0, "video", name), layer)
        if new is not None and new is not layer:
            holder, own = layer_at(view.network, name)
            found.append((holder, own, layer, new))
    return found


def _weak_method(text: str) -> Method | None:
    """The method of the weak side."""
    if not text:
        return None
    from longtake.methods import parse_method

    method = parse_method(text.replace("/", ","))
    if method.rank() in (*CACHES, "sampler", "guidance", "observer"):
        raise BadInput(
            f"w2sd: weak_method is {method.name}, which acts at the level '{method.rank()}'; use one that computes layers, "
            "tokens or attention in another way, such as minmax8 or local-window"
        )
    return method


def _decoded(prompt: str) -> str:
    """A prompt as it is meant; commas and pluses, at which a command line is split, are written %2C and %2B there."""
    return prompt.replace("%2C", ",").replace("%2B", "+")


def _encoded(prompt: str) -> str:
    return prompt.replace(",", "%2C").replace("+", "%2B")
