"""The methods that are applied to one pipeline: sorted, checked against one another, attached, and their receipts."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from torch import Tensor, nn

from longtake.errors import Conflict, InertMethod, Unsupported
from longtake.runtime.conductor import WHOLE, Conductor, Go
from longtake.runtime.hooks import conductor_of
from longtake.runtime.ledger import Ledger
from longtake.runtime.looping import SamplingLoop
from longtake.runtime.method import RANKS, Here, Method
from longtake.runtime.nouns import StepInfo, TokenGrid
from longtake.runtime.receipts import Receipt
from longtake.runtime.steps import StepCounter
from longtake.runtime.store import RUNS, Store
from longtake.runtime.views import ModelView, view_of

NETWORKS = ("transformer", "transformer_2")
GUIDANCE = "guidance"
"""Branch under which guidance is counted."""
SAMPLER = "sampler"
"""Branch under which steps are counted, by methods that act before them."""
WEIGHTS = "weights"
"""Branch under which replaced layers are counted."""


class Terms(Protocol):
    """On what a stack may be used, where that is not everywhere: a profile of a calibration, for example."""

    def check(self, pipe: Any, settings: Any = None) -> None:
        """Raise Unsupported for a pipeline, or for what a run of it is asked for (`longtake.pipelines.records.Settings`)."""
        ...


def arrange(methods: Sequence[Method]) -> list[Method]:
    """Methods from the outermost to the innermost.

    Raises:
        Conflict: two of them cannot be used together; the message names both.
    """
    order = sorted(methods, key=lambda method: RANKS.index(method.rank()))
    for i, one in enumerate(order):
        for other in order[i + 1 :]:
            why = refusal(one, other)
            if why:
                raise Conflict(f"{one.name} and {other.name} cannot be used together: {why}")
    return order


def refusal(one: Method, other: Method) -> str | None:
    """Why two methods cannot be used together, in words; None where they can."""
    return one.conflict(other) or other.conflict(one) or _owned_by_both(one, other)


def _owned_by_both(one: Method, other: Method) -> str | None:
    for owned in sorted(one.owns() & other.owns()):
        return f"both must have the {owned} level alone; leave one of them out"
    if {"range", "part"} <= one.owns() | other.owns():
        return "one skips whole blocks and the other parts of the same blocks; leave one of them out"
    return None


class Stack:
    """Methods on a pipeline of ours or of diffusers, or on a network alone.

    A context manager: `with Stack(methods).attach(pipe) as stack: ...` detaches at the end, and raises InertMethod if a
    method did nothing in any of the runs.

    Args:
        methods: in any order.
        allow_inert: warn of a method that did nothing instead of raising.
        terms: that pipelines and their runs are checked against.

    Attributes:
        weights: hash of our pipeline's weights without any method.
        ledgers: of the last runs, store.RUNS at most; the one that was touched longest ago goes first.

    Raises:
        Conflict: see `arrange`.
    """

    def __init__(self, methods: Sequence[Method], *, allow_inert: bool = False, terms: Sequence[Terms] = ()) -> None:
        self.methods = arrange(methods)
        self.allow_inert = allow_inert
        self.terms = tuple(terms)
        self.store = Store()
        self.conductors: list[Conductor] = []
        self.ledgers: OrderedDict[int, Ledger] = OrderedDict()
        self._before: list[
            set[int]
        ] = []  # of runs that were not judged, and whose ledgers are gone: which methods acted
        self.steps = StepCounter(self.begin, self._finish, self._total_steps, self._timesteps)
        self._pipe: Any = None
        self._runs = 0
        self.weights: str | None = None

    def attach(self, pipe: Any, views: Sequence[ModelView] | None = None) -> "Stack":
        """Attach to a pipeline's networks.

        Args:
            pipe: a pipeline, or a network.
            views: of its networks, for those that are neither ours nor diffusers'.

        Raises:
            Unsupported: a network that a method cannot work on, or that already has a stack.
        """
        if self.conductors:
            raise Unsupported("this stack is attached already; detach it first, or make another")
        self.admit(pipe)
        if views is None:
            networks = {"transformer": pipe} if isinstance(pipe, nn.Module) else _networks(pipe)
            views = [view_of(network, name) for name, network in networks.items()]
        for view in views:
            if conductor_of(view.network) is not None:
                raise Unsupported(f"{type(view.network).__name__} has a stack already; detach that one first")
            for method in self.methods:
                method.check(view)
        self._pipe = pipe
        weights = getattr(pipe, "weights", None)
        if callable(weights):  # ours: what its records name, before a layer is replaced
            self.weights = weights()
        try:
            for view in views:
                conductor = Conductor(view, self)
                conductor.attach()
                self.conductors.append(conductor)
        except BaseException:
            self.detach()
            raise
        return self

    def detach(self) -> None:
        """Take everything away again, and forget all state."""
        for conductor in self.conductors:
            conductor.detach()
        self.conductors = []
        self.store.clear()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.steps.over()
        for run in [run for run, ledger in self.ledgers.items() if not ledger.closed]:
            self.finish(run)
        self.detach()
        if kind is None:
            runs = [_acting(ledger) for ledger in self.ledgers.values() if not ledger.judged]
            acted = set[int]().union(*runs, *self._before)
            idle = [i for i in range(len(self.methods)) if i not in acted] if runs or self._before else []
            self._complain([self.methods[i] for i in idle])

    @property
    def guides_at_all(self) -> bool:
        """Whether a method guides, so that both predictions are needed whatever the pipeline's own scale is."""
        return any(method.overrides("guide") for method in self.methods)

    @property
    def steers(self) -> bool:
        """Whether a method acts before steps of the sampler."""
        return any(method.overrides("before_step") for method in self.methods)

    def before_step(self, info: StepInfo, x: Tensor, loop: SamplingLoop) -> Tensor:
        """The sample (B, C, T, H, W) from which a step of the sampler is made."""
        view = next((c.view for c in self.conductors if c.view.model == info.model), self.conductors[0].view)
        info, grid = replace(info, branch=SAMPLER), TokenGrid(*x.shape[2:])
        for number, (method, receipt) in enumerate(zip(self.methods, self.ledger(info.run).receipts, strict=True)):
            if not method.overrides("before_step"):
                continue
            state, step = self.store.at(number, info, SAMPLER), self.store.step(number, info)
            here = Here(info, WHOLE, view, grid, state, state, step, receipt)
            x = method.before_step(here, x, loop)
            counts = receipt.count(SAMPLER)
            if here.other_way:
                counts.changed += 1
            else:
                counts.computed += 1
        return x

    def evaluated(self, info: StepInfo, predictions: int) -> None:
        """Count a prediction of the loop, guided or not, which took one or two of the network."""
        for method, receipt in zip(self.methods, self.ledger(info.run).receipts, strict=True):
            if method.overrides("before_step"):
                for note, count in (("evaluations", 1), ("predictions", predictions)):
                    receipt.notes[note] = receipt.notes.get(note, 0) + count

    def guides(self, info: StepInfo) -> bool:
        """Whether a step needs the prediction without the prompt; where it does not, who said so is noted."""
        needed = True
        for method, receipt in zip(self.methods, self.ledger(info.run).receipts, strict=True):
            if method.overrides("guides") and not method.guides(info):
                receipt.count(GUIDANCE).skipped += 1
                needed = False
            elif method.overrides("guides"):
                receipt.count(GUIDANCE).computed += 1
        if not needed and not info.extra:
            self.ledger(info.run).alone.add(info.s)
        return needed

    def guide(
        self, info: StepInfo, cond: Tensor, null: Tensor, x: Tensor, nxt: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The guided velocity of a step: the methods that guide, then the pipeline's own way."""
        view = self.conductors[0].view
        grid = TokenGrid(*x.shape[2:])
        info = replace(info, branch=f"{info.branch}.{GUIDANCE}" if info.extra else GUIDANCE)
        asked = [(i, method) for i, method in enumerate(self.methods) if method.overrides("guide")]

        def go(place: int, on: Go, cond: Tensor, null: Tensor) -> Tensor:
            if place == len(asked):
                return nxt(cond, null)
            number, method = asked[place]
            state, step = self.store.at(number, info, GUIDANCE), self.store.step(number, info)
            receipt = self.ledger(info.run).receipts[number]
            here = Here(info, WHOLE, view, grid, state, state, step, receipt)
            made = method.guide(here, cond, null, x, lambda cond, null: on(place + 1, on, cond, null))
            counts = receipt.count(GUIDANCE)
            if here.other_way:
                counts.changed += 1
            else:
                counts.computed += 1
            return made

        return go(0, go, cond, null)

    def admit(self, pipe: Any, settings: Any = None) -> None:
        """Raise Unsupported for a pipeline, or for settings of a run, that the stack's terms do not allow."""
        for terms in self.terms:
            terms.check(pipe, settings)

    def begin(self) -> int:
        """Number of a new run."""
        self._runs += 1
        return self._runs - 1

    def ledger(self, run: int) -> Ledger:
        """Of a run, which it begins."""
        if run in self.ledgers:
            self.ledgers.move_to_end(run)
        else:
            while len(self.ledgers) >= RUNS:
                self._forget(next(iter(self.ledgers)))
            sites = [sum(c.sites[i] for c in self.conductors) for i in range(len(self.methods))]
            receipts = [Receipt(m.name, m.config(), n) for m, n in zip(self.methods, sites, strict=True)]
            for i, (method, receipt) in enumerate(zip(self.methods, receipts, strict=True)):
                replaced = [pair for c in self.conductors for pair in c.replaced(i)]
                if replaced:
                    receipt.count(WEIGHTS).changed = len(replaced)
                    method.report(receipt, replaced)
            self.ledgers[run] = Ledger(receipts)
        return self.ledgers[run]

    def finish(self, run: int, *, complain: bool = False) -> list[Receipt]:
        """End a run: forget its state, and close its receipts.

        Args:
            run: its number.
            complain: about methods that did nothing in this run, here and now; when the stack is left, those are told that
                did nothing in any of the other runs.

        Raises:
            InertMethod: a method did nothing in this run.
        """
        ledger = self.ledger(run)
        if not ledger.closed:
            ledger.closed = True
            for method, receipt in zip(self.methods, ledger.receipts, strict=True):
                if not ledger.unknown:
                    receipt.macs_done, receipt.macs_dense = ledger.done, ledger.dense
                method.run_end(receipt)
            self.store.end(run)
        if complain:
            ledger.judged = True
            acted = _acting(ledger)
            self._complain([method for number, method in enumerate(self.methods) if number not in acted])
        return ledger.receipts

    def _forget(self, run: int) -> None:
        """Drop the ledger of a run, but for what may have to be complained about."""
        self.finish(run)
        ledger = self.ledgers.pop(run)
        if not ledger.judged:
            self._before = [set[int]().union(_acting(ledger), *self._before)]

    def _finish(self, run: int) -> None:
        self.finish(run)

    def close(self) -> list[Receipt]:
        """End the run that was begun last, and return its receipts. Raises InertMethod."""
        return self.finish(self._runs - 1, complain=True)

    @property
    def receipts(self) -> list[Receipt]:
        """Of the last run."""
        if not self.ledgers:
            return []
        return self.finish(max(self.ledgers))

    def _complain(self, idle: Sequence[Method]) -> None:
        if not idle:
            return
        names: dict[str, list[str]] = {}
        for method in idle:
            names.setdefault(method.idle, []).append(method.name)
        text = "; ".join(f"{', '.join(those)} did nothing: {why}" for why, those in names.items())
        if not self.allow_inert:
            raise InertMethod(text)
        warnings.warn(text, stacklevel=3)

    @contextmanager
    def bare(self) -> Iterator[None]:
        """The networks with the layers that methods have replaced, while nothing is run: for looking at their weights."""
        for conductor in self.conductors:
            conductor.put(original=True)
        try:
            yield
        finally:
            for conductor in self.conductors:
                conductor.put(original=False)

    def _timesteps(self) -> object:
        return getattr(getattr(self._pipe, "scheduler", None), "timesteps", None)

    def _total_steps(self) -> int | None:
        scheduler = getattr(self._pipe, "scheduler", None)
        timesteps = getattr(scheduler, "timesteps", None)
        set_before = getattr(scheduler, "num_inference_steps", None)
        return len(timesteps) if timesteps is not None and set_before else None


def _acting(ledger: Ledger) -> set[int]:
    """Numbers of the methods that did something."""
    return {number for number, receipt in enumerate(ledger.receipts) if receipt.acted}


def stack_of(network: nn.Module) -> Stack | None:
    """The stack that is attached to a network."""
    conductor = conductor_of(network)
    return None if conductor is None else conductor.stack


def _networks(pipe: Any) -> dict[str, nn.Module]:
    found = {name: getattr(pipe, name, None) for name in NETWORKS}
    networks = {name: network for name, network in found.items() if isinstance(network, nn.Module)}
    if not networks:
        raise Unsupported(f"{type(pipe).__name__} has no transformer that methods could be applied to")
    return networks
