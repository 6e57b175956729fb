"""Flow matching: a straight path from data to noise, and how often each place on it is trained.

x_sigma = (1 - sigma) * data + sigma * noise, velocity = noise - data, loss = mean (prediction - velocity)^2; sigma = 1
is pure noise (rectified flow, arXiv 2209.03003; Wan, arXiv 2503.20314). The samplers of sigma are those of Stable
Diffusion 3 (arXiv 2403.03206) as Waver (arXiv 2508.15761) uses them:
    uniform  sigma = u, u ~ U(0, 1)
    lognorm  sigma = sigmoid(location + scale * n), n ~ N(0, 1); Waver for images: location 0.5, scale 1, no shift
    mode     f(u) = 1 - u - scale * (cos(pi*u/2)^2 - 1 + u); Waver for video: scale 1.29, shift 3
each followed by the shift s: sigma = s*f / (1 + (s-1)*f).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from longtake.errors import BadInput, UnknownName, nearest

TIMESTEPS = 1000  # a network is given sigma * 1000, as diffusers' flow-matching schedulers do


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels in [0, 1] towards 1 (shift > 1) or 0 (shift < 1), ends fixed; shift 1 is the identity."""
    return sigma if shift == 1.0 else shift * sigma / (1 + (shift - 1) * sigma)


def uniform(u: Tensor) -> Tensor:
    """U(0, 1) itself."""
    return u


def lognorm(u: Tensor, location: float = 0.0, scale: float = 1.0) -> Tensor:
    """Sigmoid of N(location, scale^2), by the inverse of the normal distribution at u in (0, 1)."""
    return torch.sigmoid(location + scale * torch.special.ndtri(u))


def mode(u: Tensor, scale: float = 1.29) -> Tensor:
    """Heavy around the middle and at the noisy end, but never empty; scale 0 is uniform (1 - u)."""
    return 1 - u - scale * (torch.cos(torch.pi * u / 2) ** 2 - 1 + u)


@dataclass(frozen=True)
class SigmaSampler:
    """A distribution of noise levels."""

    name: str
    shift: float
    transform: Callable[[Tensor], Tensor]

    def __call__(
        self, count: int, generator: torch.Generator, *, stratum: int | None = None, strata: int = 1
    ) -> Tensor:
        """Draw `count` noise levels, all from one of so many equally likely parts if asked: float32 (count,) in [0, 1]."""
        u = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)
        u = u if stratum is None else (stratum + u) / strata
        sigma = shift_sigma(self.transform(u.clamp(1e-9, 1 - 1e-9)), self.shift)
        return sigma.clamp(0.0, 1.0).float()


def sigma_sampler(
    name: str = "mode", shift: float = 1.0, *, location: float = 0.0, scale: float | None = None
) -> SigmaSampler:
    """Return a named distribution of noise levels.

    Args:
        name: "uniform", "lognorm" or "mode".
        shift: > 0; 3 is Waver's for video. Do not use it on top of lognorm for images.
        location: of lognorm only.
        scale: of lognorm (default 1, > 0) or mode (default 1.29, in [-1, 2/(pi - 2)] where it is monotone).

    Raises:
        UnknownName: no such distribution. BadInput: a parameter out of range.
    """
    if shift <= 0:
        raise BadInput(f"shift {shift} of the noise levels; it must be above 0 (1 leaves them as they are)")
    if name == "uniform":
        return SigmaSampler(name, shift, uniform)
    if name == "lognorm":
        width = 1.0 if scale is None else scale
        if width <= 0:
            raise BadInput(f"scale {width} of lognorm; it must be above 0")
        return SigmaSampler(name, shift, partial(lognorm, location=location, scale=width))
    if name == "mode":
        weight = 1.29 if scale is None else scale
        if not -1 <= weight <= 2 / (torch.pi - 2):
            raise BadInput(f"scale {weight} of mode; it must be between -1 and {2 / (torch.pi - 2):.3f}")
        return SigmaSampler(name, shift, partial(mode, scale=weight))
    raise UnknownName(f"no sigma sampler named {name!r}.{nearest(name, ['uniform', 'lognorm', 'mode'])}")


@dataclass(frozen=True)
class FlowLoss:
    """One evaluation of the objective: mean loss, loss of each sample (B,), and the noise levels (B,) it was at."""

    loss: Tensor
    each: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class FlowMatching:
    """The objective that trains a velocity network.

    Args:
        sampler: of the noise levels; default mode(1.29) with shift 3, Waver's for video.
    """

    sampler: SigmaSampler = field(default_factory=lambda: sigma_sampler("mode", 3.0))

    def __call__(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        latents: Tensor,
        *,
        generator: torch.Generator,
        sigma: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> FlowLoss:
        """Return the loss of a network on clean latents.

        Args:
            predict: (noisy latents (B, ...), timestep (B,) = sigma * 1000) -> velocity (B, ...).
            latents: (B, ...), clean.
            generator: draws sigma first, then noise, on its own device.
            sigma, noise: (B,) and the latents' shape, to fix them instead of drawing (for a held-out loss).
        """
        if sigma is None:
            sigma = self.sampler(latents.shape[0], generator)
        if noise is None:
            noise = torch.randn(latents.shape, generator=generator, device=generator.device)
        sigma, noise = sigma.to(latents.device), noise.to(latents)
        at = sigma.view(-1, *[1] * (latents.ndim - 1)).to(latents.dtype)
        noisy = torch.lerp(latents, noise, at)
        velocity = predict(noisy, sigma * TIMESTEPS)
        each = (velocity.float() - (noise - latents).float()).square().flatten(1).mean(1)
        return FlowLoss(each.mean(), each.detach(), sigma)
