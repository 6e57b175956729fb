"""Guidance whose strength is another one for the second network of a pair."""

from collections.abc import MutableMapping
from dataclasses import dataclass

from torch import Tensor

from longtake.diffusion.guidance import cfg


@dataclass(frozen=True)
class TwoStrengths:
    """Classifier-free guidance of two strengths.

    Args:
        scale: of the first network's steps. If it is 1 nothing is guided, as in diffusers' WanPipeline.
        second: of the second network's steps, unless `scale` has been changed from `asked`, which then holds for both.
        asked: scale of the run. levels: noise levels, sigma, of the second network's steps.
    """

    scale: float
    second: float
    asked: float
    levels: frozenset[float]

    def __call__(
        self, cond: Tensor, null: Tensor, x: Tensor, sigma: float, memory: MutableMapping[str, Tensor]
    ) -> Tensor:
        """Guide; neither x nor memory is used."""
        second = sigma in self.levels and self.scale == self.asked
        return cfg(cond, null, self.second if second else self.scale)
