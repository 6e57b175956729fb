"""Train the tokenizer: clips through the causal autoencoder and back.

loss = reconstruction + KL (+ what else `TokenizerLoss` is asked for). The posterior is sampled with noise that belongs
to each clip. Validation decodes the posterior's mean and measures PSNR on [-1, 1] pixels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtake.errors import BadRecipe
from longtake.tokenizers.discriminator import PatchDiscriminator, fixed, hinge_discriminator
from longtake.tokenizers.losses import TokenizerLoss
from longtake.tokenizers.statistics import measure_statistics
from longtake.training.models import build_tokenizer
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, check_arguments
from longtake.training.sources import Sets, pixel_data, sample_fps
from longtake.training.tasks import Batch, seeded_noise
from longtake.video import Clip


class TokenizerTask:
    """See `longtake.training.tasks.Task`. Batches hold ``pixels`` (B, 3, T, H, W) in [-1, 1]."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world = recipe, world
        if recipe.data.view == "sound":
            raise BadRecipe("data.view: sound has ids; use tokenizer.kind: vqgan.")
        self.vae = build_tokenizer(recipe.tokenizer).to(world.device)
        self.vae.latent_shape(recipe.data.frames, recipe.data.height, recipe.data.width)  # BadSize before anything runs
        if recipe.tokenizer.train == "decoder":
            self.vae.requires_grad_(False)
            for part in (self.vae.post_quant_conv, self.vae.decoder):
                part.requires_grad_(True)
        check_arguments(TokenizerLoss, recipe.tokenizer.loss, "tokenizer.loss")
        self.criterion = TokenizerLoss(**recipe.tokenizer.loss)
        self.modules: dict[str, nn.Module] = {"tokenizer": self.vae}
        self.discriminator: PatchDiscriminator | None = None
        if self.criterion.gan:
            check_arguments(PatchDiscriminator, recipe.tokenizer.discriminator, "tokenizer.discriminator")
            self.discriminator = PatchDiscriminator(**recipe.tokenizer.discriminator).to(world.device)
            self.modules["discriminator"] = self.discriminator
        self.sets: Sets | None = None

    def data(self) -> Sets:
        if self.sets is None:
            self.sets = pixel_data(self.recipe.data, self.recipe.seed, self.world)
        return self.sets

    def begin(self, step: int) -> None:
        """Nothing changes from step to step."""

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = batch["pixels"]
        mean, logvar = self.vae.posterior(pixels)
        noise = seeded_noise(tuple(mean.shape[1:]), seeds, mean.device)
        latents = mean + torch.exp(0.5 * logvar) * noise
        decoded = self.vae.decode(self.vae.normalise(latents), clamp=False)
        if self.discriminator is None:
            return self.criterion(decoded, pixels, mean, logvar)
        # Both players in one backward pass: each loss reaches only its own player's weights.
        total, parts = self.criterion(decoded, pixels, mean, logvar, fixed(self.discriminator))
        real, fake = self.discriminator(pixels)[-1], self.discriminator(decoded.detach())[-1]
        judged = hinge_discriminator(real.float(), fake.float())
        return total + judged, {**parts, "discriminator": judged.detach()}

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        pixels = batch["pixels"]
        mean, _ = self.vae.posterior(pixels)
        difference = self.vae.decode(self.vae.normalise(mean)).float() - pixels
        each = difference.square().flatten(1).mean(1)
        # A range of 2, so the peak's square is 4.
        return {"loss": difference.abs().flatten(1).mean(1), "psnr": 10 * torch.log10(4 / each.clamp(min=1e-10))}

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        """Held-out clips: on the left the clip, on the right what comes back."""
        vae: Any = modules["tokenizer"]
        held_out, count = self.data()[1], self.recipe.samples.count
        return side_by_side(held_out, count, lambda pixels: vae.decode(vae.encode(pixels.to(self.world.device))))

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        """Save the tokenizer with the mean and deviation of each latent channel, measured on training clips.

        Training itself goes on with the statistics that it began with.
        """
        vae: Any = modules["tokenizer"]
        recipe, before = self.recipe.tokenizer, (vae.config.latents_mean, vae.config.latents_std)
        if recipe.measure and recipe.train != "decoder":
            (train, *_), _ = self.data()
            count = min(recipe.measure_clips, len(train))
            spread = (index * len(train) // count for index in range(count))
            measure_statistics(vae, (train[index]["pixels"][None] for index in spread))
        vae.save_pretrained(folder)
        vae.set_statistics(*before)


def side_by_side(
    held_out: Sequence[Batch], count: int, round_trip: Callable[[Tensor], Tensor]
) -> list[tuple[str, Clip]]:
    """The first clips of a held-out set, each beside what a tokenizer makes of it: pixels (1, 3, T, H, W) -> the same."""
    clips: list[tuple[str, Clip]] = []
    for index in range(min(count, len(held_out))):
        item = held_out[index]
        pixels = item["pixels"][None]
        both = torch.cat([pixels, round_trip(pixels).float().cpu()], dim=-1)
        clips.append((item.get("prompt", ""), Clip(both, sample_fps(item))))
    return clips
