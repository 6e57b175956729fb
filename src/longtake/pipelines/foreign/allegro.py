"""Allegro (arXiv 2410.15458), text to video: it predicts the noise, at first for a sample of large variance."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.sampling import draw_noise
from longtake.errors import BadSize
from longtake.pipelines.foreign.dialect import Dialect, Usual, times


class Allegro(Dialect):
    """AllegroPipeline. Its autoencoder makes 4 frames of every latent frame, of which those asked for are kept."""

    pipeline: ClassVar[str] = "AllegroPipeline"
    fps = 15.0
    words: ClassVar[int] = 512

    def settle(self) -> None:
        self.pipe.vae.enable_tiling()  # it decodes in tiles, or not at all

    @property
    def usual(self) -> Usual:
        own, (time, space) = self.pipe.transformer.config, self.stride
        return Usual(own.sample_frames * time, own.sample_height * space, own.sample_width * space, 100, 7.5)

    def latent_frames(self, frames: int) -> int:
        if frames < 1:
            raise BadSize(f"frames {frames} does not fit this model; the nearest number is 1")
        time, odd = self.stride[0], frames % 2
        return -(-(frames - odd) // time) + odd

    def noise(self, shape: tuple[int, int, int, int], generators: list[torch.Generator]) -> Tensor:
        return draw_noise(shape, generators, self.pipe.text_encoder.dtype)

    def encode(self, prompt: str, negative: str | None) -> tuple[Conditions, Conditions | None]:
        cond, mask, null, null_mask = self.pipe.encode_prompt(
            prompt,
            negative is not None,
            negative_prompt=negative,
            clean_caption=True,
            max_sequence_length=self.words,
        )
        return Conditions(cond, mask.bool()), None if null is None else Conditions(null, null_mask.bool())

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        frames, height, width = x.shape[2:]
        space = self.stride[1]
        return network(
            hidden_states=x,
            timestep=times(x, t),
            encoder_hidden_states=given.text,
            encoder_attention_mask=given.text_mask,
            image_rotary_emb=self.pipe._prepare_rotary_positional_embeddings(
                x.shape[0], height * space, width * space, frames, x.device
            ),
            return_dict=False,
        )[0]

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        return self.pipe.decode_latents(latents.to(self.pipe.vae.dtype))[:, :, :frames, :height, :width]
