"""What a method of the sampler is given before a step: the step itself and its inverse, and predictions that it asks for.

The loop of `longtake.diffusion.sampling` is one. A sample here is the scheduler's own, (B, C, T, H, W) in float32, and a
prediction is of the kind that the scheduler takes (velocity, noise, data or v), without the code of a variance.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """A prediction beside those of the ordinary steps.

    Args:
        branch: under which methods see it; the prediction without the prompt, where it is made apart, is `branch.uncond`.
        guidance: strength of guidance, any number, 1 = none; None = as in the ordinary step.
        prompt: in place of the run's own; None = the run's own.
    """

    branch: str
    guidance: float | None = None
    prompt: str | None = None


class ReversibleStep(Protocol):
    """A deterministic step of the sampler that needs nothing but one prediction, and its inverse."""

    def forward(self, x: Tensor, prediction: Tensor) -> Tensor:
        """The sample at the next noise level."""
        ...

    def back(self, y: Tensor, prediction: Tensor) -> Tensor:
        """The sample x with forward(x, prediction) = y."""
        ...


class SamplingLoop(Protocol):
    """A sampling loop that is about to make a step."""

    @property
    def step(self) -> ReversibleStep:
        """The coming step. Raises Unsupported for a scheduler whose steps cannot be undone."""
        ...

    def predict(self, x: Tensor, variant: Variant) -> Tensor:
        """A prediction at a sample, told the timestep of the coming step whatever the sample's noise level is.

        Raises:
            BadInput: a strength of guidance where the prediction without the prompt is not at hand.
            Unsupported: a prompt where the loop cannot encode one.
        """
        ...

    def clamp(self, x: Tensor, *, after: bool) -> Tensor:
        """Put the given latents of a conditioned clip back, at the noise level before or after the step."""
        ...

    def hands_over(self) -> bool:
        """Whether the step after this one is made by another network (Wan 2.2)."""
        ...
