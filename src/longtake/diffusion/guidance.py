"""Guidance: how the prediction with the prompt (cond) and the one without it (null) make one.

- `cfg`, classifier-free guidance (arXiv 2207.12598): v = v_null + w * (v_cond - v_null).
- `apg`, adaptive projected guidance (arXiv 2410.02416) as Waver (arXiv 2508.15761) uses it: d = v_cond - v_null is
  averaged with momentum, its norm is limited, and its part parallel to v_cond, which over-saturates, is damped:
      v = v_cond + (w - 1) * (d_orthogonal + eta * d_parallel)
  Norm and projection are taken over (C, H, W) of each frame, not over the whole clip.

Where Waver is silent: eta = 0 and momentum = 0. Its threshold, 27, belongs to the size of its latents (a norm grows as
the root of C*H*W), so ours is relative to the norm of v_cond by default.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from longtake.errors import BadInput

FRAME = (1, 3, 4)  # channels, rows and columns of (B, C, T, H, W): what one frame's norm runs over


def cfg(cond: Tensor, null: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance; scale 1 returns `cond` up to rounding, 0 returns `null`."""
    return null + scale * (cond - null)


def limit_norm(difference: Tensor, limit: Tensor | float) -> Tensor:
    """Scale each frame of (B, C, T, H, W) down to a norm of at most `limit`, a number or (B, 1, T, 1, 1)."""
    norm = torch.linalg.vector_norm(difference, dim=FRAME, keepdim=True)
    return difference * (limit / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)


def project(difference: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """Split each frame into the part parallel to `onto` and the rest, which is orthogonal to it. They sum to the whole.

    Args:
        difference, onto: (B, C, T, H, W).

    Returns:
        parallel, orthogonal, in float64 rounded to the inputs' dtype.
    """
    wide, axis = difference.double(), onto.double()
    square = axis.square().sum(FRAME, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    parallel = (wide * axis).sum(FRAME, keepdim=True) / square * axis
    return parallel.to(difference.dtype), (wide - parallel).to(difference.dtype)


def apg(
    cond: Tensor,
    null: Tensor,
    scale: float,
    *,
    eta: float = 0.0,
    threshold: float = float("inf"),
    relative: bool = True,
    momentum: float = 0.0,
    average: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Adaptive projected guidance.

    Args:
        cond, null: (B, C, T, H, W).
        scale: w; 1 returns `cond`.
        eta: share of the parallel part that is kept; 1 with an infinite threshold is `cfg`.
        threshold: the largest norm of a frame's difference, as a multiple of the norm of that frame of `cond` when
            `relative`, else as it is.
        momentum: weight of `average`, negative to push away from the past.
        average: difference of the previous step, None at the first.

    Returns:
        The guided prediction, and the average to give to the next step.
    """
    difference = cond - null
    if momentum and average is not None:
        difference = difference + momentum * average
    limit: Tensor | float = threshold
    if relative:
        limit = threshold * torch.linalg.vector_norm(cond, dim=FRAME, keepdim=True).clamp(min=1e-12)
    parallel, orthogonal = project(limit_norm(difference, limit), cond)
    return cond + (scale - 1) * (orthogonal + eta * parallel), difference


class Guider(Protocol):
    """How a sampling loop guides. `memory` is a fresh, empty mapping in every run: what is kept between steps."""

    @property
    def scale(self) -> float:
        """Strength; 1 means that the prediction without the prompt is never asked for."""
        ...

    def __call__(
        self, cond: Tensor, null: Tensor, x: Tensor, sigma: float, memory: MutableMapping[str, Tensor]
    ) -> Tensor:
        """Guide velocities of the noisy latents `x` at noise level `sigma`."""
        ...


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance of a given scale."""

    scale: float = 4.0

    def __call__(
        self, cond: Tensor, null: Tensor, x: Tensor, sigma: float, memory: MutableMapping[str, Tensor]
    ) -> Tensor:
        """Guide; neither x, sigma nor memory is used."""
        return cfg(cond, null, self.scale)


@dataclass(frozen=True)
class APG:
    """Adaptive projected guidance; the arguments are those of `apg`.

    Args:
        on: "velocity", as Waver, or "clean": applied to the predicted clean latents x - sigma * v, as in APG's paper.
    """

    scale: float = 8.0
    eta: float = 0.0
    threshold: float = 1.0
    relative: bool = True
    momentum: float = 0.0
    on: str = "velocity"

    def __post_init__(self) -> None:
        if self.on not in ("velocity", "clean"):
            raise BadInput(f"guidance on {self.on!r}; use 'velocity' or 'clean'")
        if not self.threshold > 0:
            raise BadInput(f"guidance threshold {self.threshold}; it must be above 0 (infinite for none)")

    def __call__(
        self, cond: Tensor, null: Tensor, x: Tensor, sigma: float, memory: MutableMapping[str, Tensor]
    ) -> Tensor:
        """Guide; the running average is kept in `memory` when there is momentum."""
        clean = self.on == "clean" and sigma > 0
        if clean:
            cond, null = x - sigma * cond, x - sigma * null
        guided, average = apg(
            cond,
            null,
            self.scale,
            eta=self.eta,
            threshold=self.threshold,
            relative=self.relative,
            momentum=self.momentum,
            average=memory.get("average"),
        )
        if self.momentum:
            memory["average"] = average
        return (x - guided) / sigma if clean else guided
