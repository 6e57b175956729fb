"""Latte (arXiv 2401.03048), text to video: it predicts the noise and the code of a variance."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.sampling import draw_noise
from longtake.errors import BadSize
from longtake.pipelines.foreign.dialect import Dialect, Usual, times


class Latte(Dialect):
    """LattePipeline. Frames are encoded one by one, and every clip has as many as the network was trained on."""

    pipeline: ClassVar[str] = "LattePipeline"
    fps = 8.0
    words: ClassVar[int] = 120

    @property
    def usual(self) -> Usual:
        size = self.pipe.transformer.config.sample_size * self.stride[1]
        return Usual(self.pipe.transformer.config.video_length, size, size, 50, 7.5)

    @property
    def stride(self) -> tuple[int, int]:
        return 1, self.pipe.vae_scale_factor

    def latent_frames(self, frames: int) -> int:
        own = self.pipe.transformer.config.video_length
        if frames not in (1, own):
            raise BadSize(
                f"frames {frames} does not fit this model, which makes clips of {own} frames, or single images"
            )
        return frames

    def noise(self, shape: tuple[int, int, int, int], generators: list[torch.Generator]) -> Tensor:
        return draw_noise(shape, generators, self.pipe.text_encoder.dtype)

    def encode(self, prompt: str, negative: str | None) -> tuple[Conditions, Conditions | None]:
        # both texts are cut to the tokens of the prompt, so there is no mask
        cond, null = self.pipe.encode_prompt(prompt, negative is not None, negative_prompt=negative, clean_caption=True)
        return Conditions(cond), None if null is None else Conditions(null)

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        return network(hidden_states=x, timestep=times(x, t), encoder_hidden_states=given.text, return_dict=False)[0]

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        return self.pipe.decode_latents(latents.to(self.pipe.vae.dtype), latents.shape[2])
