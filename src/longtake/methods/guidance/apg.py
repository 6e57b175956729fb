"""Adaptive projected guidance in place of the pipeline's own: see `longtake.diffusion.guidance` for what it does.

Paper: arXiv 2410.02416; as Waver (arXiv 2508.15761) uses it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longtake.diffusion.guidance import APG
from longtake.runtime.method import Here, Method


@dataclass(frozen=True)
class ProjectedGuidance(Method):
    """APG; settings as `longtake.diffusion.guidance.APG`."""

    name: ClassVar[str] = "apg"
    idle: ClassVar[str] = (
        "the run was not made by our sampling loop, or without a prediction without the prompt; call a pipeline of ours, or "
        "longtake.pipelines.foreign.ForeignPipeline around one of diffusers, or leave it out"
    )

    scale: float = 8.0
    eta: float = 0.0
    threshold: float = 1.0
    relative: bool = True
    momentum: float = 0.0
    on: str = "velocity"

    def __post_init__(self) -> None:
        self._guider()

    def _guider(self) -> APG:
        return APG(self.scale, self.eta, self.threshold, self.relative, self.momentum, self.on)

    def rank(self) -> str:
        return "guidance"

    def owns(self) -> frozenset[str]:
        return frozenset({"guidance"})

    def guide(
        self, here: Here, cond: Tensor, null: Tensor, x: Tensor, nxt: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        here.changed("apg")
        return self._guider()(cond, null, x, here.info.sigma or 0.0, here.state)
