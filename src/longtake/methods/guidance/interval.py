"""Guidance on an interval of noise levels; outside of it the prediction without the prompt is not made at all.

Paper: "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models",
arXiv 2404.07724. At very high noise guidance drives all samples to few modes, at very low noise it changes nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from longtake.errors import BadInput
from longtake.runtime.knobs import Knob
from longtake.runtime.method import Method
from longtake.runtime.nouns import StepInfo


@dataclass(frozen=True)
class GuidanceInterval(Method):
    """Guides between two noise levels.

    Args:
        low, high: guidance where low <= noise <= high; noise is the share of the training timesteps, 1 = pure noise.
    """

    name: ClassVar[str] = "cfg-interval"
    knobs: ClassVar[tuple[Knob, ...]] = (
        Knob("low", (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)),
        Knob("high", (0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)),
    )
    idle: ClassVar[str] = (
        "the run had no guidance, or no step outside of the interval, or was not made by our sampling loop; give a guidance "
        "other than 1 and a narrower interval, or leave it out"
    )

    low: float = 0.15
    high: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise BadInput(f"cfg-interval: from {self.low} to {self.high}; use noise levels with 0 <= low <= high <= 1")

    def rank(self) -> str:
        return "guidance"

    def conflict(self, other: Method) -> str | None:
        return "two intervals are their overlap; give that one" if isinstance(other, GuidanceInterval) else None

    def guides(self, info: StepInfo) -> bool:
        return self.low <= info.noise <= self.high
