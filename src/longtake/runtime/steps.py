"""Which step and branch a call of a network belongs to, where nobody says so.

Pipelines of diffusers name the branch through `cache_context`, and some the step. What they do not say is told from the
timestep: another value within a run is the next step, a larger one the beginning of a new run.
"""

from collections.abc import Callable

from diffusers.hooks.hooks import CacheContext

from longtake.runtime.nouns import StepInfo

UNNAMED = "all"
"""Branch of calls that nobody named."""
TRAINED = 1000
"""Timesteps that every supported network counts to."""


class StepCounter:
    """Steps of runs that somebody else's loop makes, over all networks of a pipeline.

    Args:
        begin: gives the number of a new run. end: is told the number of one that is over.
        total: steps of the run, if anybody knows.
    """

    def __init__(self, begin: Callable[[], int], end: Callable[[int], None], total: Callable[[], int | None]) -> None:
        self._begin, self._end, self._total = begin, end, total
        self._run: int | None = None
        self._last, self._s = 0.0, 0

    def over(self) -> None:
        """The run has ended; the next call begins another."""
        if self._run is not None:
            run, self._run = self._run, None
            self._end(run)

    def next(self, t: float, context: CacheContext | None, model: str) -> StepInfo:
        """The step of a call at the raw timestep t."""
        if self._run is not None and t > self._last:
            self.over()
        if self._run is None:
            self._run, self._s = self._begin(), 0
        elif t != self._last:
            self._s += 1
        self._last = t
        s, total, sigma, branch = self._s, self._total(), None, UNNAMED
        if context is not None:
            branch = context.name
            s = s if context.step_index is None else int(context.step_index)
            total = context.num_inference_steps or total
            sigma = None if context.sigma is None else float(context.sigma)
        return StepInfo(self._run, s, total, t, t / TRAINED, sigma, branch, model)
