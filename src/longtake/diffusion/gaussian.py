"""Gaussian diffusion as DiT and Latte train it: noise prediction with a learned variance, a thousand steps.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise,   beta linear from 1e-4 to 0.02
    log variance = f log(beta_t) + (1 - f) log(betatilde_t),   f = (code + 1) / 2              (2102.09672, eq. 15)
    loss = mean (noise prediction - noise)^2 + L_vlb, in bits per dimension

L_vlb is KL(q(x_t-1 | x_t, x_0) || p(x_t-1 | x_t)), and at t = 0 the negative log likelihood of x_0 in bins of 2/255. The
noise prediction is detached inside L_vlb, which so trains the variance alone. Nothing is rescaled by the number of steps.
As in the published code the normal distribution function in the last term is its tanh form.

A network of this kind predicts [noise, code] on the channel axis; `noise_denoiser` shows it to the sampling loop, which
speaks flow matching.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.errors import BadInput
from longtake.runtime import StepInfo

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

    from longtake.diffusion.sampling import Denoiser

TIMESTEPS = 1000
BETAS = (1e-4, 0.02)


def noise_schedule(steps: int = TIMESTEPS, first: float = BETAS[0], last: float = BETAS[1]) -> Tensor:
    """beta of every step, linear: float64 (steps,)."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


@dataclass(frozen=True)
class GaussianLoss:
    """One evaluation: the mean loss; the loss, its two parts and the timestep of each sample (B,)."""

    loss: Tensor
    each: Tensor
    noise: Tensor
    bound: Tensor
    timestep: Tensor


class GaussianDiffusion:
    """The objective that trains a noise-predicting network.

    Args:
        betas: float64 (S,), of every step; default linear over 1,000 steps.
        learned_variance: the network also gives the code of the variance; else the loss is the squared error alone.
    """

    def __init__(self, betas: Tensor | None = None, learned_variance: bool = True) -> None:
        self.betas = noise_schedule() if betas is None else betas
        self.learned_variance = learned_variance
        self.kept = torch.cumprod(1 - self.betas, 0)  # abar
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.kept[:-1]])
        variance = self.betas * (1 - before) / (1 - self.kept)  # betatilde, 0 at the first step
        self.low = torch.cat([variance[1:2], variance[1:]]).log()
        self.high = self.betas.log()
        self.mean_data = self.betas * before.sqrt() / (1 - self.kept)
        self.mean_noisy = (1 - before) * (1 - self.betas).sqrt() / (1 - self.kept)

    @property
    def steps(self) -> int:
        """Number of steps S."""
        return len(self.betas)

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t of clean latents (B, ...) at whole timesteps (B,)."""
        kept = self.kept.to(latents.device)[timestep]
        return _like(kept.sqrt(), latents) * latents + _like((1 - kept).sqrt(), latents) * noise

    def log_variance(self, code: Tensor, timestep: Tensor) -> Tensor:
        """Log variance of p(x_t-1 | x_t) by a code (B, ...), -1 for betatilde and 1 for beta."""
        low, high = (_like(table.to(code.device)[timestep], code) for table in (self.low, self.high))
        share = (code + 1) / 2
        return share * high + (1 - share) * low

    def posterior_mean(self, latents: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """Mean of q(x_t-1 | x_t, x_0), (B, ...)."""
        of_data, of_noisy = (table.to(latents.device)[timestep] for table in (self.mean_data, self.mean_noisy))
        return _like(of_data, latents) * latents + _like(of_noisy, latents) * noisy

    def bound(self, latents: Tensor, noisy: Tensor, timestep: Tensor, noise: Tensor, code: Tensor) -> Tensor:
        """L_vlb of a prediction of the noise and a code: (B,), bits per dimension."""
        kept = self.kept.to(latents.device)[timestep]
        data = _like(kept.rsqrt(), noisy) * noisy - _like((1 / kept - 1).sqrt(), noisy) * noise
        mean, log_variance = self.posterior_mean(data, noisy, timestep), self.log_variance(code, timestep)
        true_mean = self.posterior_mean(latents, noisy, timestep)
        true_log = _like(self.low.to(latents.device)[timestep], latents)
        divergence = 0.5 * (
            log_variance
            - true_log
            - 1
            + (true_log - log_variance).exp()
            + (true_mean - mean) ** 2 * (-log_variance).exp()
        )
        likelihood = -_log_likelihood(latents, mean, 0.5 * log_variance)
        each = torch.where(_like(timestep == 0, latents).bool(), likelihood, divergence)
        return each.flatten(1).mean(1) / math.log(2)

    def __call__(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        latents: Tensor,
        *,
        timestep: Tensor,
        noise: Tensor,
    ) -> GaussianLoss:
        """Return the loss of a network on clean latents.

        Args:
            predict: (noisy latents (B, C, ...), timestep (B,)) -> (B, 2C, ...), or (B, C, ...) without learned variance.
            latents: (B, C, ...), clean.
            timestep: (B,) whole numbers in [0, S). noise: standard normal, of the latents' shape.

        Raises:
            BadInput: a prediction of another number of channels.
        """
        noisy, channels = self.add_noise(latents, noise, timestep), latents.shape[1]
        made = predict(noisy, timestep).float()
        if made.shape[1] != channels * (2 if self.learned_variance else 1):
            wanted = 2 * channels if self.learned_variance else channels
            raise BadInput(f"the network gives {made.shape[1]} channels and this objective needs {wanted}")
        guess, code = made[:, :channels], made[:, channels:]
        error = (guess - noise).square().flatten(1).mean(1)
        bound = torch.zeros_like(error)
        if self.learned_variance:
            bound = self.bound(latents, noisy, timestep, guess.detach(), code)
        each = error + bound
        return GaussianLoss(each.mean(), each, error.detach(), bound.detach(), timestep)


def noise_denoiser(backbone: "ModelMixin", kept: Tensor | None = None) -> "Denoiser":
    """View a noise-predicting network as a denoiser (see `longtake.diffusion.sampling`).

    The point on the flow's path becomes the sample of the diffusion at the time of the same signal-to-noise ratio, and
    the noise becomes a velocity. A code of the variance stays behind the velocity on the channel axis.

    Args:
        backbone: `forward(latents, timestep, text, text_mask, frames, *, labels, info)`.
        kept: abar of every step, float64 (S,); default that of `GaussianDiffusion`.
    """
    kept = GaussianDiffusion().kept if kept is None else kept.double().cpu()
    levels = (1 - kept).sqrt() / (kept.sqrt() + (1 - kept).sqrt())  # sigma of the flow at every step, rising

    def denoise(x: Tensor, info: StepInfo, conditions: Conditions) -> Tensor:
        given = conditions.to(x.device, backbone.dtype)
        sigma = min(max(info.noise if info.sigma is None else info.sigma, float(levels[0])), float(levels[-1]))
        above = min(max(int(torch.searchsorted(levels, sigma)), 1), len(levels) - 1)
        low, high = float(levels[above - 1]), float(levels[above])
        time = above - 1 + (sigma - low) / (high - low)
        if abs(time - round(time)) < 0.01:  # schedulers hold abar in float32
            time = float(round(time))
        scale = math.hypot(1 - sigma, sigma)  # x_t = x / scale, since abar = (1 - sigma)^2 / scale^2
        timestep = torch.full((x.shape[0],), time, device=x.device)
        sample = (x / scale).to(backbone.dtype)
        of_class = {} if given.labels is None else {"labels": given.labels}
        made = backbone(sample, timestep, given.text, given.text_mask, given.frames, **of_class, info=info).float()
        noise, code = made[:, : x.shape[1]], made[:, x.shape[1] :]
        return torch.cat(
            [(noise - x) / (1 - sigma), code], dim=1
        )  # noise - data with data = (x - sigma noise)/(1 - sigma)

    return denoise


def _log_likelihood(latents: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log likelihood of values in bins of 2/255 under a normal distribution, the outermost bins open."""
    centred, inverse = latents - mean, (-log_deviation).exp()
    above, below = _normal(inverse * (centred + 1 / 255)), _normal(inverse * (centred - 1 / 255))
    inner = (above - below).clamp(min=1e-12).log()
    last = torch.where(latents > 0.999, (1 - below).clamp(min=1e-12).log(), inner)
    return torch.where(latents < -0.999, above.clamp(min=1e-12).log(), last)


def _normal(x: Tensor) -> Tensor:
    """The normal distribution function in its tanh form."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _like(values: Tensor, tensor: Tensor) -> Tensor:
    """Numbers (B,) in the dtype of a tensor (B, ...), to be multiplied with it."""
    return values.to(tensor).view(-1, *[1] * (tensor.ndim - 1))
