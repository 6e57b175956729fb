"""Which step and branch a call of a network belongs to, where nobody says so.

Pipelines of diffusers name the branch through `cache_context`, and some the step. What they do not say is told from the
timestep: another value within a run is the next step. A new run begins where the timestep goes back, or where the
scheduler's steps have been set anew, as every pipeline does before its loop; so one that broke is not taken for the
beginning of the next, even if that starts at less noise.
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
        timesteps: what the scheduler's are kept in, another object once they are set anew; None if nobody knows.
    """

    def __init__(
        self,
        begin: Callable[[], int],
        end: Callable[[int], None],
        total: Callable[[], int | None],
        timesteps: Callable[[], object] = lambda: None,
    ) -> None:
        self._begin, self._end, self._total, self._timesteps = begin, end, total, timesteps
        self._run: int | None = None
        self._set: object = None
        self._last, self._s = 0.0, 0

    def over(self) -> None:
        """The run has ended; the next call begins another."""
        if self._run is not None:
            run, self._run = self._run, None
            self._end(run)

    def next(self, t: float, context: CacheContext | None, model: str, rising: bool = False) -> StepInfo:
        """The step of a call at the raw timestep t, which falls along a run, or rises from noise at 0."""
        back, before, self._set = t < self._last if rising else t > self._last, self._set, self._timesteps()
        if self._run is not None and (back or self._set is not before):
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
        return StepInfo(self._run, s, total, t, 1 - t / TRAINED if rising else t / TRAINED, sigma, branch, model)
