"""Mochi 1 (Genmo, 2024; no paper), text to video: time runs the other way, and the network predicts data - noise."""

from typing import Any, ClassVar

import numpy as np
from diffusers import SchedulerMixin
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.errors import Unsupported
from longtake.pipelines.foreign.dialect import Dialect, Usual, denormalised, times

LINEAR_UNTIL = 0.025
"""Noise that the first half of the steps takes away, in equal parts; the other half goes ever faster."""


class Reversed:
    """A scheduler with `invert_sigmas`, for which 0 is noise, as one for which 1 is: it takes noise - data.

    Args:
        scheduler: with its noise levels set and `set_begin_index(0)`, at the beginning of a run.
    """

    def __init__(self, scheduler: SchedulerMixin) -> None:
        self.own: Any = scheduler
        self.config: Any = FrozenDict({**scheduler.config, "invert_sigmas": False, "use_flow_sigmas": True})

    @property
    def sigmas(self) -> Tensor:
        """Noise levels, falling to 0."""
        return 1 - self.own.sigmas

    @property
    def timesteps(self) -> Tensor:
        """Falling; float64, so that the network can be told exactly its own."""
        return self.config.num_train_timesteps - self.own.timesteps.double()

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """One step along a velocity noise - data."""
        return self.own.step(-model_output, self.config.num_train_timesteps - timestep, sample, return_dict=False)


class Mochi(Dialect):
    """MochiPipeline."""

    pipeline: ClassVar[str] = "MochiPipeline"
    fps = 30.0
    words: ClassVar[int] = 256

    @property
    def usual(self) -> Usual:
        return Usual(19, 480, 848, 64, 4.5)

    @property
    def stride(self) -> tuple[int, int]:
        return self.pipe.vae_temporal_scale_factor, self.pipe.vae_spatial_scale_factor

    @property
    def scheduler(self) -> SchedulerMixin:
        own = self.pipe.scheduler
        if not own.config.get("invert_sigmas"):
            raise Unsupported(
                f"MochiPipeline with a {type(own).__name__} that has no invert_sigmas=True steps the wrong way; use "
                "FlowMatchEulerDiscreteScheduler(invert_sigmas=True)"
            )
        return Reversed(own)  # type: ignore[return-value]

    def set_steps(self, steps: int, shape: tuple[int, int, int, int]) -> None:
        from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

        self.set_sigmas(np.array(linear_quadratic_schedule(steps, LINEAR_UNTIL)))
        self.pipe.scheduler.set_begin_index(0)

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        made = network(
            hidden_states=x,
            timestep=times(x, self.pipe.scheduler.config.num_train_timesteps - t),
            encoder_hidden_states=given.text,
            encoder_attention_mask=given.text_mask,
            return_dict=False,
        )[0]
        return -made

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        own, factor = latents.to(vae.dtype), vae.config.scaling_factor
        mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is None or deviation is None:
            own = own / factor
        else:
            own = denormalised(own, mean, [one / factor for one in deviation])
        return vae.decode(own, return_dict=False)[0]
