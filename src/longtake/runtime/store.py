"""What methods remember within one run, and when they must forget it."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

from torch import Tensor

from longtake.runtime.nouns import StepInfo

RUNS = 8
"""Runs that are remembered at a time; the one that was touched longest ago goes first."""


class Store:
    """State of all methods on one pipeline: run -> (model, branch, chunk) -> (method, site) -> a dict.

    A method never sees another's, another branch's or another run's. A step's own dict is shared by its branches.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[int, dict[Hashable, dict[Hashable, dict[str, Any]]]] = OrderedDict()
        self._steps: dict[Hashable, tuple[int, dict[Hashable, dict[str, Any]]]] = {}
        self._forms: dict[Hashable, Hashable] = {}

    def at(self, method: int, info: StepInfo, site: str) -> dict[str, Any]:
        """What method number `method` keeps at a site, in this run and branch."""
        branches = self._runs.setdefault(info.run, {})
        self._runs.move_to_end(info.run)
        sites = branches.setdefault((info.model, info.branch, info.chunk), {})
        return sites.setdefault((method, site), {})

    def step(self, method: int, info: StepInfo) -> dict[str, Any]:
        """What a method keeps for one step, over all branches."""
        key = (info.run, info.model, info.chunk)
        step, kept = self._steps.get(key, (-1, {}))
        if step != info.s:
            kept = {}
            self._steps[key] = info.s, kept
        return kept.setdefault(method, {})

    def enter(self, info: StepInfo, form: Hashable) -> None:
        """Begin a call: a branch forgets everything unless it was called on the step before, with tensors of this form.

        Guidance that is left out of some steps makes other branches come and go, and what they knew has grown old then.

        Args:
            info: of the call. form: shapes, dtypes and devices of what the network is given.
        """
        branch = (info.model, info.branch, info.chunk)
        key = (info.run, *branch)
        last = self._forms.get(key)
        if last is not None and (info.s != last[0] + 1 or form != last[1]):  # type: ignore[index]
            self._runs.get(info.run, {}).pop(branch, None)
        self._forms[key] = (info.s, form)
        if info.run not in self._runs and len(self._runs) >= RUNS:
            self.end(next(iter(self._runs)))

    def end(self, run: int) -> None:
        """Forget a run."""
        self._runs.pop(run, None)
        for kept in (self._steps, self._forms):
            for key in [key for key in kept if key[0] == run]:  # type: ignore[index]
                del kept[key]

    def clear(self) -> None:
        """Forget everything."""
        self._runs.clear()
        self._steps.clear()
        self._forms.clear()

    def bytes(self, method: int) -> int:
        """Bytes of all tensors that a method keeps, over all runs and branches."""
        return sum(
            _bytes(value)
            for branches in self._runs.values()
            for sites in branches.values()
            for (owner, _), kept in sites.items()  # type: ignore[misc]
            if owner == method
            for value in kept.values()
        )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def _bytes(value: Any) -> int:
    return sum(one.element_size() * one.nelement() for one in _tensors(value))
