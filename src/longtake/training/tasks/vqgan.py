"""Train a VQGAN: clips through its codebook and back, first alone, then against two discriminators.

Both players' losses go through one backward pass, and each reaches its own weights alone. The codebook has no gradient: it
learns once in each pass from the vectors of that pass, after the loss has used it. Validation measures the clip that the
ids decode to, with the statistics of batch norm that training has gathered.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtake.errors import BadRecipe
from longtake.tokenizers.discriminator import PatchDiscriminator
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.tokenizers.vqgan_loss import VqganLoss
from longtake.training.models import build_tokenizer
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, check_arguments
from longtake.training.sources import Sets, item_size, pixel_data
from longtake.training.tasks import Batch
from longtake.training.tasks.tokenizer import side_by_side
from longtake.video import Clip


class VqganTask:
    """See `longtake.training.tasks.Task`. Batches hold ``pixels`` (B, C, T, H, W) in [-1, 1], C 3, or 1 of sound."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world, own = recipe, world, recipe.tokenizer
        if recipe.ema.decay:
            raise BadRecipe(
                f"ema.decay: {recipe.ema.decay}; the codebook and the statistics of batch norm belong to the weights "
                "themselves, not to their average; set it to 0."
            )
        if world.kind in ("fsdp", "hsdp"):
            raise BadRecipe(f"parallel.kind: {world.kind}; two players and a codebook are trained whole, use ddp.")
        self.tokenizer: VQGAN3d = build_tokenizer(own).to(world.device)
        self.tokenizer.latent_shape(*item_size(recipe.data))  # BadSize at once
        channels, sounds = self.tokenizer.config.channels, recipe.data.view == "sound"
        if channels != (1 if sounds else 3):
            what = "a spectrogram has 1" if sounds else "a picture has 3"
            raise BadRecipe(f"tokenizer.config.channels: {channels}, and {what}.")
        check_arguments(VqganLoss, own.loss, "tokenizer.loss")
        self.criterion = VqganLoss(**own.loss)
        if sounds and self.criterion.perceptual:
            raise BadRecipe("tokenizer.loss.perceptual: its features are those of pictures; leave it at 0 for sound.")
        self.modules: dict[str, nn.Module] = {"tokenizer": self.tokenizer}
        check_arguments(PatchDiscriminator, own.discriminator, "tokenizer.discriminator")
        settings = {"norm": "batch", "in_channels": channels, **own.discriminator}
        for name, dims in (("frames", 2), ("clips", 3)):
            self.modules[name] = PatchDiscriminator(**{**settings, "dims": dims}).to(world.device)
        if world.size > 1 and world.device.type == "cuda":  # elsewhere each process has statistics of its own
            self.modules = {n: nn.SyncBatchNorm.convert_sync_batchnorm(m) for n, m in self.modules.items()}
        self.step = 0
        self.sets: Sets | None = None
        self.generator = torch.Generator()

    def data(self) -> Sets:
        if self.sets is None:
            self.sets = pixel_data(self.recipe.data, self.recipe.seed, self.world)
        return self.sets

    def begin(self, step: int) -> None:
        """The discriminators join at a step of the loss's choice."""
        self.step = step

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        pixels, codebook = batch["pixels"], self.tokenizer.quantizer
        frames = pixels.shape[2]
        chosen = [torch.randint(frames, (), generator=self.generator.manual_seed(seed)) for seed in seeds]
        if not codebook.begun:
            with torch.no_grad():
                codebook.begin(self.tokenizer(pixels).vectors, self.generator)
        coded = self.tokenizer(pixels)
        judges: list[Any] = [self.modules["frames"], self.modules["clips"]]
        joined = self.step >= self.criterion.start
        total, parts = self.criterion(coded, pixels, torch.stack(chosen).to(pixels.device), *judges, joined=joined)
        codebook.learn(coded.vectors, coded.quantized.ids, self.generator)
        if self.world.size > 1 and not joined:  # DDP waits for a gradient of every weight
            total = total + 0.0 * torch.stack([w.sum() for judge in judges for w in judge.parameters()]).sum()
        return total, {**parts, "perplexity": coded.quantized.perplexity}

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        pixels = batch["pixels"]
        ids = self.tokenizer.encode(pixels)
        difference = self.tokenizer.decode(ids) - pixels
        each = difference.square().flatten(1).mean(1)
        used = torch.tensor([len(row.unique()) for row in ids], device=ids.device)
        # A range of 2, so the peak's square is 4.
        psnr = 10 * torch.log10(4 / each.clamp(min=1e-10))
        return {"loss": difference.abs().flatten(1).mean(1), "psnr": psnr, "codes": used}

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        """Held-out clips: on the left the clip, on the right what comes back."""
        own: Any = modules["tokenizer"]
        held_out, count = self.data()[1], self.recipe.samples.count
        return side_by_side(held_out, count, lambda pixels: own.decode(own.encode(pixels.to(self.world.device))))

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        """Save the tokenizer, with its codebook."""
        own: Any = modules["tokenizer"]
        own.save_pretrained(folder)
