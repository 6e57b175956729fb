"""Train the tokenizer: clips through the causal autoencoder and back.

loss = reconstruction + KL (+ what else `TokenizerLoss` is asked for). The posterior is sampled with noise that belongs
to each clip. Validation decodes the posterior's mean and measures PSNR on [-1, 1] pixels.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from longtake.tokenizers.causal_vae import CausalVAE
from longtake.training.export import detached_copy
from longtake.training.models import build_tokenizer
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, check_arguments
from longtake.training.sources import pixel_data, sample_fps
from longtake.training.tasks import Batch, seeded_noise
from longtake.video import Clip


class TokenizerTask:
    """See `longtake.training.tasks.Task`. Batches hold ``pixels`` (B, 3, T, H, W) in [-1, 1]."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.vae = build_tokenizer(recipe.tokenizer).to(world.device)
        self.vae.latent_shape(recipe.data.frames, recipe.data.height, recipe.data.width)  # BadSize before anything runs
        self.fresh = recipe.tokenizer.init_from is None
        if recipe.tokenizer.train == "decoder":
            self.vae.requires_grad_(False)
            for part in (self.vae.post_quant_conv, self.vae.decoder):
                part.requires_grad_(True)
        self.criterion = build_loss(recipe.tokenizer.loss)
        self.modules: dict[str, nn.Module] = {"tokenizer": self.vae}
        self.sets: tuple[Dataset[Any], Dataset[Any]] | None = None

    def data(self) -> tuple[Dataset[Any], Dataset[Any]]:
        if self.sets is None:
            self.sets = pixel_data(self.recipe.data, self.recipe.seed, self.world)
        return self.sets

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = batch["pixels"]
        mean, logvar = self.vae.posterior(pixels)
        noise = seeded_noise(tuple(mean.shape[1:]), seeds, mean.device)
        latents = mean + torch.exp(0.5 * logvar) * noise
        decoded = self.vae.decode(self.vae.normalise(latents), clamp=False)
        return self.criterion(decoded, pixels, mean, logvar)

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        pixels = batch["pixels"]
        mean, _ = self.vae.posterior(pixels)
        difference = self.vae.decode(self.vae.normalise(mean)).float() - pixels
        each = difference.square().flatten(1).mean(1)
        # A range of 2, so the peak's square is 4.
        return {"loss": difference.abs().flatten(1).mean(1), "psnr": 10 * torch.log10(4 / each.clamp(min=1e-10))}

    def sample(self) -> list[tuple[str, Clip]]:
        _, held_out = self.data()
        clips: list[tuple[str, Clip]] = []
        for index in range(min(self.recipe.samples.count, len(held_out))):  # type: ignore[arg-type]
            item = held_out[index]
            pixels = item["pixels"][None].to(self.world.device)
            mean, _ = self.vae.posterior(pixels)
            decoded = self.vae.decode(self.vae.normalise(mean)).float()
            both = torch.cat([pixels, decoded], dim=-1).cpu()  # left the clip, right its reconstruction
            clips.append((item.get("prompt", ""), Clip(both, sample_fps(item))))
        return clips

    @torch.no_grad()
    def finish(self) -> None:
        """Measure mean and deviation of each latent channel on training clips and store them."""
        recipe = self.recipe.tokenizer
        if recipe.train == "decoder" or not (self.fresh or recipe.measure):
            return
        train, _ = self.data()
        count = min(recipe.measure_clips, len(train))  # type: ignore[arg-type]
        total = square = 0.0
        values = 0
        for index in range(count):
            mean, _ = self.vae.posterior(train[index]["pixels"][None].to(self.world.device))
            mean = mean.double()
            total, square = total + mean.sum((0, 2, 3, 4)), square + mean.square().sum((0, 2, 3, 4))
            values += mean[:, 0].numel()
        average = total / values
        self.vae.set_statistics(average, (square / values - average.square()).clamp(min=1e-12).sqrt())

    def export(self, folder: Path, weights: dict[str, dict[str, Tensor]]) -> None:
        copy = detached_copy(self.vae, weights["tokenizer"])
        assert isinstance(copy, CausalVAE)
        copy.save_pretrained(folder)


def build_loss(arguments: dict[str, Any]) -> Any:
    """The tokenizer's loss with a recipe's arguments."""
    try:
        from longtake.tokenizers.losses import TokenizerLoss
    except ImportError:
        return l1_kl

    check_arguments(TokenizerLoss, arguments, "tokenizer.loss")
    return TokenizerLoss(**arguments)


def l1_kl(decoded, pixels, mean, logvar):
    l1 = (decoded - pixels).abs().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return l1 + 1e-6 * kl, {"l1": l1.detach(), "kl": kl.detach()}
