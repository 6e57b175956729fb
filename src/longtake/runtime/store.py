"""What methods remember within one run, and when they must forget it."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from torch import Tensor

from longtake.runtime.nouns import StepInfo

Kept = dict[tuple[int, str], dict[str, Any]]
"""By the number of a method and the name of a site."""
RUNS = 8
"""Runs that are remembered at a time; the one that was touched longest ago goes first."""


class Store:
    """State of all methods on one pipeline: run -> (model, branch, chunk) -> (method, site) -> a dict.

    A method never sees another's, another branch's or another run's. A step's own dict is shared by its branches.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[int, dict[Hashable, Kept]] = OrderedDict()
        self._steps: dict[Hashable, tuple[int, dict[int, dict[str, Any]]]] = {}
        self._forms: dict[Hashable, Hashable] = {}

    def at(self, method: int, info: StepInfo, site: str) -> dict[str, Any]:
        """What method number `method` keeps at a site, in this run and branch."""
        return self.branch(info).setdefault((method, site), {})

    def branch(self, info: StepInfo) -> Kept:
        """What all methods keep in this run and branch, by method and site."""
        branches = self._runs.setdefault(info.run, {})
        self._runs.move_to_end(info.run)
        return branches.setdefault((info.model, info.branch, info.chunk), {})

    def step(self, method: int, info: StepInfo) -> dict[str, Any]:
        """What a method keeps for one step, over all branches."""
        return self.steps(info).setdefault(method, {})

    def steps(self, info: StepInfo) -> dict[int, dict[str, Any]]:
        """What all methods keep for one step, by method."""
        key = (info.run, info.model, info.chunk)
        step, kept = self._steps.get(key, (-1, {}))
        if step != info.s:
            kept = {}
            self._steps[key] = info.s, kept
        return kept

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
            for (owner, _), kept in sites.items()
            if owner == method
            for value in kept.values()
        )


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0
