"""LTX-Video (arXiv 2501.00103), text to video: its network takes tokens, and noise levels depend on how many there are."""

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.pipelines.foreign.dialect import Dialect, Usual, times

SHIFT = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
"""The line from tokens to the shift of noise levels, where the scheduler does not say."""


class LTX(Dialect):
    """LTXPipeline. An autoencoder that is told a time decodes at time 0, where nothing is left to be denoised."""

    pipeline: ClassVar[str] = "LTXPipeline"
    fps = 25.0
    words: ClassVar[int] = 128

    @property
    def usual(self) -> Usual:
        return Usual(161, 512, 704, 50, 3.0)

    @property
    def stride(self) -> tuple[int, int]:
        return self.pipe.vae_temporal_compression_ratio, self.pipe.vae_spatial_compression_ratio

    def set_steps(self, steps: int, shape: tuple[int, int, int, int]) -> None:
        from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift

        own = self.pipe.scheduler.config
        tokens = shape[1] * shape[2] * shape[3]
        mu = calculate_shift(tokens, *(own.get(name, value) for name, value in SHIFT.items()))
        self.set_sigmas(np.linspace(1.0, 1 / steps, steps), {"mu": mu})

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        frames, height, width = x.shape[2:]
        time, space = self.stride
        patches = self.pipe.transformer_spatial_patch_size, self.pipe.transformer_temporal_patch_size
        made = network(
            hidden_states=self.pipe._pack_latents(x, *patches),
            timestep=times(x, t),
            encoder_hidden_states=given.text,
            encoder_attention_mask=given.text_mask,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(time / self.fps, space, space),
            return_dict=False,
        )[0]
        return self.pipe._unpack_latents(made, frames, height, width, *patches)

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        own = self.pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        own = own.to(vae.dtype)
        return vae.decode(
            own, times(own, 0.0).to(own) if vae.config.timestep_conditioning else None, return_dict=False
        )[0]
