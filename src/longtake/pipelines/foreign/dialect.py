"""What the sampling loop must know of a family's pipeline: how it encodes, sets its steps, calls its network, decodes."""

from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.sampling import draw_noise
from longtake.errors import BadSize, Unsupported


@dataclass(frozen=True)
class Usual:
    """What a pipeline makes unless something else is asked for.

    Args:
        frames, height, width: in pixels.
        steps: of the scheduler.
        guidance: scale of classifier-free guidance.
    """

    frames: int
    height: int
    width: int
    steps: int
    guidance: float


class Dialect:
    """How one family's pipeline does it. Latents are (B, C, T, H, W) here, however the family lays them out.

    Args:
        pipe: a pipeline of the class `pipeline`.

    Class attributes:
        pipeline: name of the class in diffusers.
        fps: frame rate of the clips that the family was trained on.
        words: tokens of a prompt that are read.
        batched: both predictions of guidance are made in one forward.
        exact: parts of the pipeline that stay in float32 whatever dtype it is loaded in, as they are published.
        embeds: strength of guidance that the network itself is told unless another is asked for; None where it is not.
    """

    pipeline: ClassVar[str]
    fps: float
    words: ClassVar[int]
    batched: ClassVar[bool] = True
    exact: ClassVar[tuple[str, ...]] = ()
    embeds: ClassVar[float | None] = None

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.pipe: Any = pipe

    def settle(self) -> None:
        """Set up a pipeline that was just loaded, where it works in one way only."""

    # ---------------------------------------------------------------------------------------------------------- sizes

    @property
    def usual(self) -> Usual:
        """What is made unless something else is asked for."""
        raise NotImplementedError

    @property
    def stride(self) -> tuple[int, int]:
        """Pixel frames for each latent frame, and rows (and columns) for each latent row."""
        return self.pipe.vae_scale_factor_temporal, self.pipe.vae_scale_factor_spatial

    @property
    def patch(self) -> int:
        """Latent rows (and columns) of a token."""
        return self.pipe.transformer.config.patch_size

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip. Raises BadSize, with the nearest number that fits."""
        time = self.stride[0]
        if frames < 1 or (frames - 1) % time:
            near = 1 + time * max(round((frames - 1) / time), 0)
            raise BadSize(f"frames {frames} does not fit this model; the nearest number is {near}")
        return 1 + (frames - 1) // time

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T, H, W) of a clip's latents. Raises BadSize, with the nearest numbers that fit."""
        space = self.stride[1]
        for name, value in (("height", height), ("width", width)):
            cell = space * self.patch
            if value < cell or value % cell:
                near = sorted({max(value // cell, 1) * cell, (max(value, 0) // cell + 1) * cell})
                raise BadSize(f"{name} {value} does not fit this model; nearest: {' or '.join(map(str, near))}")
        channels = self.pipe.transformer.config.in_channels
        return channels, self.latent_frames(frames), height // space, width // space

    def noise(self, shape: tuple[int, int, int, int], generators: list[torch.Generator]) -> Tensor:
        """Standard normal (B, C, T, H, W), float32, the numbers that the pipeline itself draws."""
        return draw_noise(shape, generators)

    # ---------------------------------------------------------------------------------------------------------- steps

    @property
    def scheduler(self) -> SchedulerMixin:
        """The pipeline's scheduler as `longtake.diffusion.sampling.sample` takes it, at the beginning of a run."""
        return self.pipe.scheduler

    def set_steps(self, steps: int, shape: tuple[int, int, int, int]) -> None:
        """Set the timesteps of the pipeline's scheduler as the pipeline does, for latents (C, T, H, W)."""
        self.pipe.scheduler.set_timesteps(steps, device=self.pipe._execution_device)

    def set_sigmas(self, sigmas: np.ndarray, options: dict[str, float] | None = None) -> None:
        """Set the scheduler's noise levels. Raises Unsupported for one that takes none."""
        scheduler = self.pipe.scheduler
        if "sigmas" not in signature(scheduler.set_timesteps).parameters:
            raise Unsupported(
                f"{self.pipeline} sets its scheduler's noise levels, which {type(scheduler).__name__} does not take; use "
                "FlowMatchEulerDiscreteScheduler"
            )
        scheduler.set_timesteps(sigmas=sigmas, device=self.pipe._execution_device, **(options or {}))

    # -------------------------------------------------------------------------------------------------------- network

    def network_at(self, t: float) -> tuple[str, Any]:
        """Which network makes the step at timestep t, by its name in the pipeline."""
        return "transformer", self.pipe.transformer

    def encode(self, prompt: str, negative: str | None) -> tuple[Conditions, Conditions | None]:
        """Conditions of one clip: with the prompt, and with the negative one, which is None without guidance.

        A pipeline that gives no mask lets its network read the padding, which is zero.
        """
        made = self.pipe.encode_prompt(
            prompt, negative, do_classifier_free_guidance=negative is not None, max_sequence_length=self.words
        )
        cond, null = made[: len(made) // 2], made[len(made) // 2 :]
        return _conditions(*cond), None if null[0] is None else _conditions(*null)

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        """Call the network.

        Args:
            network: the pipeline's.
            x: (B, C, T, H, W), as the scheduler's `scale_model_input` gives it, in the network's dtype.
            t: timestep.
            given: conditions of the batch, on the device and in the dtype of x.
            embedded_guidance: what a network that `embeds` is told.

        Returns:
            (B, C', T, H, W): what the pipeline's scheduler takes, and behind it what it does not read.
        """
        raise NotImplementedError

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Clean latents (B, C, T, H, W) -> pixels (B, 3, frames, height, width) of about [-1, 1], not clipped yet."""
        raise NotImplementedError


def _conditions(states: Tensor, mask: Tensor | None = None) -> Conditions:
    return Conditions(states, None if mask is None else mask.bool())


def times(x: Tensor, t: float) -> Tensor:
    """The timestep t for every clip of a batch: float32 (B,)."""
    return torch.full((x.shape[0],), t, device=x.device)


def denormalised(latents: Tensor, mean: list[float], deviation: list[float]) -> Tensor:
    """Latents (B, C, T, H, W) in the autoencoder's own range, by its statistics of every channel."""
    mean_, deviation_ = (latents.new_tensor(one).view(1, -1, 1, 1, 1) for one in (mean, deviation))
    return latents * deviation_ + mean_
