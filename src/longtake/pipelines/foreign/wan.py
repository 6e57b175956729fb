"""Wan 2.1 and 2.2 (arXiv 2503.20314), text to video: two calls a step, and in 2.2 a second network for low noise."""

from typing import Any, ClassVar

from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.pipelines.foreign.dialect import Dialect, Usual, denormalised, times


class Wan(Dialect):
    """WanPipeline. The second network takes over where the timestep falls below boundary_ratio."""

    pipeline: ClassVar[str] = "WanPipeline"
    fps = 16.0
    words: ClassVar[int] = 512
    batched: ClassVar[bool] = False
    exact: ClassVar[tuple[str, ...]] = ("vae",)

    @property
    def usual(self) -> Usual:
        return Usual(81, 480, 832, 50, 5.0)

    @property
    def patch(self) -> int:
        return self.pipe.transformer.config.patch_size[1]

    def set_steps(self, steps: int, shape: tuple[int, int, int, int]) -> None:
        super().set_steps(steps, shape)
        self.pipe.scheduler.set_begin_index(0)

    def network_at(self, t: float) -> tuple[str, Any]:
        ratio = self.pipe.config.boundary_ratio
        if ratio is None or t >= ratio * self.pipe.scheduler.config.num_train_timesteps:
            return "transformer", self.pipe.transformer
        return "transformer_2", self.pipe.transformer_2

    def predict(
        self, network: Any, x: Tensor, t: float, given: Conditions, embedded_guidance: float | None = None
    ) -> Tensor:
        timestep = times(x, t)
        if self.pipe.config.expand_timesteps:  # Wan 2.2 with 5 billion parameters is told the time of every token
            frames, height, width = x.shape[2:]
            timestep = timestep[:, None].expand(-1, frames * (height // 2) * (width // 2))
        return network(hidden_states=x, timestep=timestep, encoder_hidden_states=given.text, return_dict=False)[0]

    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        own = denormalised(latents.to(vae.dtype), vae.config.latents_mean, vae.config.latents_std)
        return vae.decode(own, return_dict=False)[0]
