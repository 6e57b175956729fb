"""Runs the methods of a stack on one network: it hooks the network's places, and asks the methods there in their order."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from longtake.errors import Unsupported
from longtake.runtime.hooks import HOOK, ROOT, Around, Root, context_of, hook, unhook
from longtake.runtime.interception import Dense, Interception
from longtake.runtime.ledger import Call
from longtake.runtime.macs import Costs, counting, scores
from longtake.runtime.method import Block, Here, Method
from longtake.runtime.nouns import AttnCall, Site, StepInfo, TokenGrid
from longtake.runtime.seam import AttendPoint, kernel_of
from longtake.runtime.views import BlockAt, ModelView, PartAt, Signature

if TYPE_CHECKING:
    from longtake.runtime.stack import Stack

Go = Callable[..., Any]
"""Asks the methods from number i on, and is handed itself: a function that names itself is a cycle, and would keep the
tensors of its call until garbage is collected."""
WHOLE = Site("model", 0, 1, "video", "model")
"""The network as a whole."""
KINDS = 64
"""Kinds of calls whose costs are remembered."""


@dataclass(frozen=True)
class Bound:
    """A method and its number in the stack."""

    number: int
    method: Method


class Conductor:
    """The methods of a stack on one network.

    Args:
        view: the network.
        stack: whose methods these are; it also keeps their state, the ledgers of runs and the count of steps.
    """

    def __init__(self, view: ModelView, stack: "Stack") -> None:
        self.view, self.stack = view, stack
        self.bounds = [Bound(i, method) for i, method in enumerate(stack.methods)]
        self.sites = [0] * len(self.bounds)
        self.announced: StepInfo | None = None
        self.call: Call | None = None
        self.costs: dict[Any, Costs] = {}  # of a call without methods, by its kind: counted once while attached
        self._told = "info" in Signature.of(type(view.network)).names  # one of ours: told the step, or not in a run
        self._placed: list[tuple[nn.Module, str]] = []
        self._replaced: list[tuple[int, nn.Module, str, nn.Module, nn.Module]] = []

    # ------------------------------------------------------------------------------------------------------ attaching

    def attach(self) -> None:
        """Hook the network. On an error nothing stays behind."""
        try:
            self._replace_linears()
            for block in self.view.blocks:
                self._place(block.module, "block", self._around_block(block), self._bound("block", block.site))
            for part in self.view.attentions:
                bounds = self._bound("attend", part.site)
                self._place(part.module, "attend", self._around_attention(part), bounds, always=True)
            for part in self.view.parts:
                bounds = self._bound("part", part.site)
                self._place(part.module, "part", self._around_part(part), bounds)
                for feeder in part.feeders:
                    self._place(feeder, "feeder", self._around_feeder(part, feeder), bounds, sites=False)
            for bound in self.bounds:
                method = bound.method
                whole = ("predict", "guide", "guides", "before_step")
                if any(method.overrides(name) for name in whole) and method.wants(WHOLE):
                    self.sites[bound.number] += 1
            self._place(self.view.network, "network", self._around_network, self.bounds, sites=False, always=True)
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take everything away again."""
        for module, name in reversed(self._placed):
            unhook(module, name)
        for _, parent, name, module, _ in reversed(self._replaced):
            setattr(parent, name, module)
        self._placed.clear()
        self._replaced.clear()

    def put(self, *, original: bool) -> None:
        """Put the layers that were replaced back in their places, or what had taken these."""
        for _, parent, name, old, new in self._replaced:
            setattr(parent, name, old if original else new)

    def replaced(self, number: int) -> list[tuple[nn.Module, nn.Module]]:
        """Layers that a method has replaced, and what is in their place."""
        return [(old, new) for own, _, _, old, new in self._replaced if own == number]

    def _bound(self, what: str, site: Site) -> list[Bound]:
        return [b for b in self.bounds if b.method.overrides(what) and b.method.wants(site)]

    def _place(
        self,
        module: nn.Module,
        what: str,
        around: Callable[..., Any],
        bounds: list[Bound],
        *,
        sites: bool = True,
        always: bool = False,
    ) -> None:
        if not bounds and not always:
            return
        if sites:
            for bound in bounds:
                self.sites[bound.number] += 1
        name = HOOK + what
        hook(module, name, Root(around, bounds, self) if name == ROOT else Around(around, bounds))
        self._placed.append((module, name))

    def _replace_linears(self) -> None:
        for bound in self.bounds:
            if not bound.method.overrides("linear"):
                continue
            for name in self.view.linears:
                module = self.view.network.get_submodule(name)
                new = bound.method.linear(Site("linear", 0, 0, "video", name), module)
                if new is None or new is module:
                    continue
                parent, _, own = name.rpartition(".")
                holder = self.view.network.get_submodule(parent)
                self._replaced.append((bound.number, holder, own, module, new))
                setattr(holder, own, new)
                self.sites[bound.number] += 1

    # -------------------------------------------------------------------------------------------------------- calling

    def here(self, bound: Bound, site: Site, layout: str = "flat") -> Here:
        """Where and when a method is called, during a call of the network."""
        call = self.call
        assert call is not None
        return Here(
            call.info,
            site,
            self.view,
            call.grid,
            call.kept.setdefault((bound.number, site.name), {}),
            call.kept.setdefault((bound.number, ""), {}),
            call.steps.setdefault(bound.number, {}),
            call.ledger.receipts[bound.number],
            layout,
        )

    def _counted(
        self,
        bound: Bound,
        here: Here,
        ask: Callable[[Callable[..., Any]], Any],
        nxt: Callable[..., Any],
        names: tuple[str, ...],
        *,
        told: bool = False,
    ) -> Any:
        """Ask one method, and note whether it passed the work on, whose dense cost is counted already where `told`."""
        passed = False

        def inner(*args: Any, **more: Any) -> Any:
            nonlocal passed
            passed = True
            return nxt(*args, **more)

        out = ask(inner)
        call, counts = self.call, here.receipt.count(here.info.branch)
        assert call is not None
        if here.other_way:
            counts.changed += 1
            call.extra += here.work
        elif passed:
            counts.computed += 1
        else:
            counts.skipped += 1
        if not passed:
            call.unseen = call.unseen or not told
            call.saved.append(names)
        return out

    def _around_network(self, bounds: list[Bound], original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        given = self.view.given(self.view.network, args, kwargs)
        info = self._info(given)
        if info is None:
            return original(*args, **kwargs)
        form = tuple((n, x.shape, x.dtype, x.device) for n, x in given.items() if isinstance(x, Tensor) and x.ndim > 1)
        self.stack.store.enter(info, form)
        grid, ledger = self.view.grid(given), self.stack.ledger(info.run)
        kept, steps = self.stack.store.branch(info), self.stack.store.steps(info)
        stage = self.view.stage(given, grid)
        kind = None if stage is None else (info.branch, form, stage)
        before, self.call = self.call, Call(info, grid, ledger, self.costs.get(kind), kind, kept, steps)
        try:
            self._plan()
            asked = self._acting([b for b in self.bounds if b.method.overrides("predict") and b.method.wants(WHOLE)])

            def go(i: int, on: Go) -> Any:
                if i == len(asked):
                    return self._measured(original, args, kwargs)
                here = self.here(asked[i], WHOLE)
                return self._counted(
                    asked[i], here, lambda nxt: asked[i].method.predict(here, nxt), lambda: on(i + 1, on), ("",)
                )

            out = go(0, go)
            self._close(self.call)
            return out
        except BaseException:
            self.stack.steps.over()  # a run that somebody else's loop makes; ours knows its runs itself
            raise
        finally:
            self.call = before

    def _info(self, given: dict[str, Any]) -> StepInfo | None:
        """Of a call, None outside a run."""
        if self._told:
            return given.get("info")
        if self.announced is not None:
            return self.announced
        timestep = given[self.view.family.timestep]
        t = float(torch.as_tensor(timestep).max())  # given frames and clips may be at 0 while the rest is on its way
        family = self.view.family
        return self.stack.steps.next(t, context_of(self.view.network), self.view.model, family.rising)

    def _acting(self, bounds: Sequence[Bound]) -> list[Bound]:
        """Those of the methods that act in the call that is going on."""
        assert self.call is not None
        return [b for b in bounds if b.method.acts_in(self.call.info)]

    def _plan(self) -> None:
        for bound in self._acting(self.bounds):
            here = self.here(bound, WHOLE)
            if "plan" not in here.step:
                here.step["plan"] = bound.method.plan(here)

    def _measured(self, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The network itself; its costs are counted at the first call of each kind in which nothing is skipped."""
        call = self.call
        assert call is not None
        if call.costs is not None or call.kind is None:
            return original(*args, **kwargs)
        with counting(self.view) as call.counting:
            out = original(*args, **kwargs)
        if not call.unseen:
            if len(self.costs) >= KINDS:
                self.costs.clear()
            self.costs[call.kind] = call.costs = call.counting.costs
        return out

    def _close(self, call: Call) -> None:
        for bound in self.bounds:
            receipt = call.ledger.receipts[bound.number]
            receipt.state_bytes = max(receipt.state_bytes, self.stack.store.bytes(bound.number))
        if call.costs is None:
            call.ledger.unknown = True
        else:
            total, saved = call.costs.total, sum(call.costs.of(*names) for names in call.saved)
            if not call.info.extra:  # a run without any method has none of these
                call.ledger.dense += 2 * total if call.info.s in call.ledger.alone else total
            call.ledger.done += total - saved + call.extra

    def _around_block(self, block: BlockAt) -> Callable[..., Any]:
        form, site = block.form, block.site
        names = Signature.of(type(block.module))

        def around(bounds: list[Bound], original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if self.call is None:
                return original(*args, **kwargs)
            given, bounds = names.by_name(args, kwargs), self._acting(bounds)

            def go(i: int, on: Go, h: Tensor, text: Tensor | None) -> Block:
                if i == len(bounds):
                    new = {form.hidden: h} if form.text is None else {form.hidden: h, form.text: text}
                    fresh, rest = names.put(args, kwargs, new)
                    made = original(*fresh, **rest)
                    return (made, text) if form.text is None else (made[0], made[1])
                here = self.here(bounds[i], site, form.layout)
                return self._counted(
                    bounds[i],
                    here,
                    lambda nxt: bounds[i].method.block(here, h, text, nxt),
                    lambda h, text: on(i + 1, on, h, text),
                    (site.name,),
                )

            h, text = go(0, go, given[form.hidden], None if form.text is None else given[form.text])
            return h if form.text is None else (h, text)

        return around

    def _around_part(self, part: PartAt) -> Callable[..., Any]:
        names = (part.site.name, *(_name_of(self.view.network, feeder) for feeder in part.feeders))

        def around(bounds: list[Bound], original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if self.call is None:
                return original(*args, **kwargs)
            x, bounds = _first(args, kwargs), self._acting(bounds)

            def go(i: int, on: Go) -> Any:
                if i == len(bounds):
                    return original(*args, **kwargs)
                here = self.here(bounds[i], part.site)
                return self._counted(
                    bounds[i], here, lambda nxt: bounds[i].method.part(here, x, nxt), lambda: on(i + 1, on), names
                )

            return go(0, go)

        return around

    def _around_feeder(self, part: PartAt, module: nn.Module) -> Callable[..., Any]:
        """A module that works for one part alone gives a stand-in of the right shape where that part is skipped."""

        def around(bounds: list[Bound], original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if self.call is None or not any(b.method.skips(self.here(b, part.site)) for b in self._acting(bounds)):
                return original(*args, **kwargs)
            x = _first(args, kwargs)
            if hasattr(module, "out_features"):
                return x.new_zeros(()).expand(*x.shape[:-1], module.out_features)
            text = kwargs.get("encoder_hidden_states")
            return x if text is None else (x, text)

        return around

    def _around_attention(self, part: PartAt) -> Callable[..., Any]:
        site, ours = part.site, isinstance(part.module, AttendPoint)

        def through(bounds: list[Bound], call: AttnCall, dense: Dense, number: int, lse: bool = False) -> Any:
            assert self.call is not None
            bounds = self._acting(bounds)
            own = replace(site, name=f"{site.name}#{number}") if number else site
            name, counter, kernel = scores(site.name, number), self.call.counting, ""

            def go(i: int, on: Go, call: AttnCall, lse: bool) -> Any:
                """The output, or with `lse` (output, log-sum-exp)."""
                nonlocal kernel
                if i == len(bounds):
                    kernel = f"lse {kernel_of(call)}" if lse else ""
                    return dense(call, lse)
                here, pair = self.here(bounds[i], own), None
                here.lse = lse

                def nxt(call: AttnCall, lse: bool = False) -> Any:
                    nonlocal pair, kernel
                    if not (lse or here.lse):
                        return on(i + 1, on, call, False)
                    kernel = ""
                    pair = on(i + 1, on, call, True)
                    if lse and kernel:
                        here.receipt.kernels[kernel] += 1
                    return pair if lse else pair[0]

                ask = bounds[i].method.attend
                made = self._counted(bounds[i], here, lambda nxt: ask(here, call, nxt), nxt, (name,), told=True)
                if isinstance(made, tuple):
                    return made if lse else made[0]
                if lse and (pair is None or made is not pair[0]):
                    raise Unsupported(
                        f"{bounds[i].method.name} computes an attention in its own way and gives no log-sum-exp, which a "
                        "method outside of it asks for; leave one of them out"
                    )
                return pair if lse else made

            with nullcontext() if counter is None else counter.attention(name, call):
                return go(0, go, call, lse)

        def around_ours(bounds: list[Bound], original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if self.call is None or not (bounds or self.call.counting):
                return original(*args, **kwargs)
            call, *rest = args
            lse = bool(kwargs.get("lse", False))
            return through(bounds, call, lambda call, lse: original(call, *rest, **{**kwargs, "lse": lse}), 0, lse)

        def around_theirs(bounds: list[Bound], original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if self.call is None or not (bounds or self.call.counting):
                return original(*args, **kwargs)

            def seen(call: AttnCall, dense: Dense, number: int) -> Tensor:
                return through(bounds, call, dense, number)

            grid = _grid_at(site, self.call.grid)
            with Interception(grid, self.view.family.text_at if site.kind == "attn.joint" else "none", seen):
                return original(*args, **kwargs)

        return around_ours if ours else around_theirs


def _grid_at(site: Site, grid: TokenGrid) -> TokenGrid:
    if site.stream == "spatial":
        return TokenGrid(1, grid.height, grid.width)
    return TokenGrid(grid.frames, 1, 1) if site.stream == "temporal" else grid


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    if args and isinstance(args[0], Tensor):
        return args[0]
    return next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))


def _name_of(network: nn.Module, module: nn.Module) -> str:
    return next(name for name, one in network.named_modules() if one is module)
