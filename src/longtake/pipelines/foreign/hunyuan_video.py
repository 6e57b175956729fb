"""HunyuanVideo (arXiv 2412.03603), text to video: guidance is distilled into the network, which is told its strength."""

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.pipelines.foreign.dialect import Dialect, Usual, times

GUIDANCE_UNIT = 1000.0
"""The network is told the strength of guidance in thousandths, as it is told the time."""


class HunyuanVideo(Dialect):
    """HunyuanVideoPipeline. Classifier-free guidance comes on top of the embedded one, and is off unless asked for."""

    pipeline: ClassVar[str] = "HunyuanVideoPipeline"
    fps = 24.0
    words: ClassVar[int] = 256
    batched: ClassVar[bool] = False
    embeds: ClassVar[float | None] = 6.0

    @property
    def usual(self) -> Usual:
        return Usual(129, 720, 1280, 50, 1.0)

    def set_steps(self, steps: int, shape: tuple[int, int, int, int]) -> None:
        self.set_sigmas(np.linspace(1.0, 0.0, steps + 1)[:-1])
        self.pipe.scheduler.set_begin_index(0)

    def encode(self, prompt: str, negative: str | None) -> tuple[Conditions, Conditions | None]:
        return self._encode(prompt), None if negative is None else self._encode(negative)

    def _encode(self, prompt: str) -> Conditions:
        text, pooled, mask = self.pipe.encode_prompt(
            prompt, device=self.pipe._execution_device, max_sequence_length=self.words
        )
        return Conditions(text, mask.bool(), pooled=pooled)

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        strength = self.embeds if embedded_guidance is None else embedded_guidance
        assert strength is not None
        return network(
            hidden_states=x,
            timestep=times(x, t),
            encoder_hidden_states=given.text,
            encoder_attention_mask=given.text_mask,
            pooled_projections=given.pooled,
            guidance=x.new_full((x.shape[0],), strength) * GUIDANCE_UNIT,
            return_dict=False,
        )[0]

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
