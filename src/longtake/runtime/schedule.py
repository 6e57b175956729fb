"""On which steps of a run everything is computed."""

from dataclasses import dataclass

from longtake.errors import BadInput
from longtake.runtime.nouns import StepInfo


@dataclass(frozen=True)
class Schedule:
    """Full steps: the first `warmup`, then every `interval`-th, counted from the last of those; and the last.

    Args:
        interval: 1 makes every step full.
        warmup: at least 1.
        last: the last step is full, where the number of steps is known.
        mask: one character a step, 1 = full, in place of all the above; steps past its end are full.
    """

    interval: int
    warmup: int = 1
    last: bool = True
    mask: str = ""

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise BadInput(f"interval is {self.interval}; use at least 1 (1 computes every step)")
        if self.warmup < 1:
            raise BadInput(
                f"warmup is {self.warmup}; use at least 1, as there is nothing to reuse before the first step"
            )
        if set(self.mask) - {"0", "1"}:
            raise BadInput(f"mask is {self.mask!r}; use one 0 or 1 for each step, 1 for those that are computed")
        if self.mask and self.mask[0] == "0":
            raise BadInput("mask begins with 0, and there is nothing to reuse before the first step; begin it with 1")

    def full(self, info: StepInfo) -> bool:
        """Whether a step is full."""
        if self.mask:
            return info.s >= len(self.mask) or self.mask[info.s] == "1"
        if self.last and info.S is not None and info.s == info.S - 1:
            return True
        return info.s < self.warmup or (info.s - self.warmup + 1) % self.interval == 0

    def steps(self, total: int) -> list[int]:
        """All full steps of a run."""
        return [s for s in range(total) if self.full(StepInfo(0, s, total, 0.0, 0.0, None, ""))]
