"""CogVideoX (arXiv 2408.06072), text to video: latents are laid out frames first, and one of its schedulers looks back."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import CogVideoXDPMScheduler, DiffusionPipeline, SchedulerMixin
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.sampling import draw_noise
from longtake.errors import BadSize
from longtake.pipelines.foreign.dialect import Dialect, Usual, times


class LookingBack:
    """CogVideoX's DPM scheduler, which is handed its last guess of the data and the last timestep, as any other.

    It draws noise in its steps, and is given latents as CogVideoX lays them out, so that the noise of a seed is the same.

    Args:
        scheduler: with its timesteps set, at the beginning of a run.
    """

    def __init__(self, scheduler: CogVideoXDPMScheduler) -> None:
        self.own: Any = scheduler
        self.config: Any = scheduler.config
        self._data: Tensor | None = None
        self._last: Tensor | None = None

    @property
    def timesteps(self) -> Tensor:
        """Of the run, falling."""
        return self.own.timesteps

    @property
    def alphas_cumprod(self) -> Tensor:
        """Share of the data's variance at every timestep of the training."""
        return self.own.alphas_cumprod

    @property
    def init_noise_sigma(self) -> float:
        """Factor on the first noise."""
        return self.own.init_noise_sigma

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The sample as the network takes it."""
        return self.own.scale_model_input(sample, timestep)

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        generator: Sequence[torch.Generator] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """One step of latents (B, C, T, H, W)."""
        frames_first = model_output.transpose(1, 2), sample.transpose(1, 2)
        made, self._data = self.own.step(
            frames_first[0], self._data, timestep, self._last, frames_first[1], generator=generator, return_dict=False
        )
        self._last = timestep
        return (made.transpose(1, 2),)


class CogVideoX(Dialect):
    """CogVideoXPipeline, 1.0 and 1.5; of the latter's tokens each stands for two latent frames, and clips are filled up."""

    pipeline: ClassVar[str] = "CogVideoXPipeline"
    fps = 8.0
    words: ClassVar[int] = 226

    def __init__(self, pipe: DiffusionPipeline) -> None:
        super().__init__(pipe)
        if self.pipe.transformer.config.patch_size_t is not None:  # 1.5
            self.fps = 16.0

    @property
    def usual(self) -> Usual:
        own, space = self.pipe.transformer.config, self.stride[1]
        return Usual(own.sample_frames, own.sample_height * space, own.sample_width * space, 50, 6.0)

    def latent_frames(self, frames: int) -> int:
        group = self.pipe.transformer.config.patch_size_t or 1
        return -(-self._shown(frames) // group) * group

    def _shown(self, frames: int) -> int:
        """Latent frames that are decoded. They are decoded in pairs, a lone first one to a single frame."""
        time = self.stride[0]
        if frames < 1 or frames % (2 * time) > 1:
            below = max(frames, 0) // (2 * time) * 2 * time
            raise BadSize(f"frames {frames} does not fit this model; nearest: {below + 1} or {below + 2 * time}")
        return 1 + (frames - 1) // time

    def noise(self, shape: tuple[int, int, int, int], generators: list[torch.Generator]) -> Tensor:
        c, t, h, w = shape
        return draw_noise((t, c, h, w), generators, self.pipe.text_encoder.dtype).transpose(1, 2)

    @property
    def scheduler(self) -> SchedulerMixin:
        own = self.pipe.scheduler
        return LookingBack(own) if isinstance(own, CogVideoXDPMScheduler) else own  # type: ignore[return-value]

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        return network(
            hidden_states=x.transpose(1, 2),
            timestep=times(x, t),
            encoder_hidden_states=given.text,
            image_rotary_emb=self._rotary(x) if network.config.use_rotary_positional_embeddings else None,
            return_dict=False,
        )[0].transpose(1, 2)

    def _rotary(self, x: Tensor) -> Any:
        frames, height, width = x.shape[2:]
        space = self.stride[1]
        return self.pipe._prepare_rotary_positional_embeddings(height * space, width * space, frames, x.device)

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        filled = latents.shape[2] - self._shown(frames)  # in front, by frames that nobody asked for
        return self.pipe.decode_latents(latents[:, :, filled:].transpose(1, 2).to(self.pipe.vae.dtype))
