"""Train a GPT on the ids of a frozen tokenizer: TATS's base, its key frames (GPT-A), or what fills their gaps (GPT-B).

loss = cross-entropy of the video's tokens, see `longtake.autoregressive.tats`. Ids come from a cache, or clips are encoded
in every step; the ids of a clip's sound, where it is the condition, come with the clip. Nothing is drawn at random: a clip's
loss is the same in every epoch.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtake.autoregressive.tats.drawing import Drawing
from longtake.autoregressive.tats.hierarchy import fill_gaps, gap_length, gap_loss
from longtake.autoregressive.tats.layout import layout, text_tokens, window_loss
from longtake.autoregressive.tats.pipeline import TatsPipeline
from longtake.autoregressive.tats.windows import slide
from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import draw_noise
from longtake.data.spectrogram import COLUMNS, ROWS
from longtake.errors import BadRecipe
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.training.models import build_gpt, build_tokenizer
from longtake.training.network_recipes import TokenizerRecipe
from longtake.training.parallel import World
from longtake.training.recipe import Recipe
from longtake.training.sources import Ears, Sets, class_names, latent_data, sample_fps
from longtake.training.tasks import Batch
from longtake.video import Clip


class GptTask:
    """See `longtake.training.tasks.Task`.

    Batches hold ``latents``, ids (B, t, h, w), or ``pixels``; with classes ``label``; with texts ``prompt``; with sound
    ``sound``, ids (B, t', h', w') of what is heard in the frames that are written.
    """

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world, own, data = recipe, world, recipe.gpt, recipe.data
        tokenizer = build_tokenizer(recipe.tokenizer)
        if not isinstance(tokenizer, VQGAN3d) or recipe.tokenizer.init_from is None:
            raise BadRecipe("tokenizer.init_from: the folder of a trained VQGAN is needed, whose ids are learned.")
        self.tokenizer = tokenizer.to(world.device).eval().requires_grad_(False)
        frames, rows, columns = self.tokenizer.latent_shape(data.frames, data.height, data.width)
        self.class_names = class_names(data) if own.condition == "class" else ()
        seen, heard = frames, frames
        if own.role == "keys":  # what lies behind the last key is neither written nor heard
            seen = -(-frames // own.spacing)
            heard = own.spacing * (seen - 1) + 1
        self.ears = self._ears(heard * tokenizer.stride[0])
        sizes = {"codes": tokenizer.config.codes, "rows": rows, "columns": columns, "classes": len(self.class_names)}
        self.layout = layout(own.condition, **sizes, audio=self._sound_sizes())
        if own.role == "gaps" and frames != own.spacing + 1:
            need = (own.spacing + 1) * self.tokenizer.stride[0]
            raise BadRecipe(f"data.frames: {data.frames}, and a gap with both its ends has {need}; use {need}.")
        gap = own.role == "gaps"
        length = gap_length(self.layout, own.spacing) if gap else self.layout.window_length(seen)
        if own.init_from is None:
            own = replace(own, config={**own.config, "vocabulary": self.layout.vocabulary, "length": length})
        trained = self.tokenizer.content_hash(), None if self.ears is None else self.ears.tokenizer.content_hash()
        self.gpt: GPT = build_gpt(own, "gpt", "interpolator" if gap else "transformer", *trained).to(world.device)
        if (self.gpt.config.vocabulary, self.gpt.config.length) != (self.layout.vocabulary, length):
            raise BadRecipe(
                f"gpt.init_from: {own.init_from} is of another condition, window or codebook than the recipe."
            )
        self.keys: GPT | None = None
        if gap:
            if own.keys.init_from is None:
                raise BadRecipe(
                    "gpt.keys.init_from: missing; gaps are exported with the key frames that they lie between."
                )
            keys: GPT = build_gpt(own.keys, "gpt.keys", "transformer", *trained).to(world.device).eval()
            self.keys = keys
            if keys.config.vocabulary != self.layout.vocabulary:
                raise BadRecipe(f"gpt.keys.init_from: {own.keys.init_from} is of another condition than the recipe.")
        self.modules: dict[str, nn.Module] = {"gpt": self.gpt}
        self.drawing = Drawing(top_k=own.top_k, top_p=own.top_p, context=own.context)
        self.sets: Sets | None = None

    def _ears(self, frames: int) -> Ears | None:
        """What hears the sound of so many frames, where sound is the condition."""
        own = self.recipe.gpt
        if own.condition != "audio":
            return None
        if own.audio.init_from is None:
            raise BadRecipe("gpt.audio.init_from: missing; the folder of a VQGAN that was trained on data.view: sound.")
        tokenizer = build_tokenizer(TokenizerRecipe(init_from=own.audio.init_from))
        if not isinstance(tokenizer, VQGAN3d) or tokenizer.config.channels != 1:
            raise BadRecipe(
                f"gpt.audio.init_from: {own.audio.init_from} is no VQGAN of sound; train one, data.view: sound."
            )
        if tokenizer.stride[0] != self.tokenizer.stride[0]:
            raise BadRecipe(
                f"gpt.audio.init_from: {own.audio.init_from} makes ids of {tokenizer.stride[0]} frames and the tokenizer "
                f"of {self.tokenizer.stride[0]}; train them with the same downsample in time."
            )
        return Ears(tokenizer.eval().requires_grad_(False), frames)

    def _sound_sizes(self) -> tuple[int, int]:
        """Tokens of the sound that is heard, and its ids."""
        if self.ears is None:
            return 0, 0
        tokenizer = self.ears.tokenizer
        return math.prod(tokenizer.latent_shape(self.ears.frames, ROWS, COLUMNS)), tokenizer.config.codes

    def _heard_per_frame(self) -> int:
        """Tokens of the sound of a latent frame; 0 without."""
        return 0 if self.ears is None else self._sound_sizes()[0] * self.tokenizer.stride[0] // self.ears.frames

    def data(self) -> Sets:
        if self.sets is None:
            keep = ("label",) if self.class_names else ()
            data, seed = self.recipe.data, self.recipe.seed
            self.sets = latent_data(data, seed, self.tokenizer, self.world, keep, self.ears)
        return self.sets

    def begin(self, step: int) -> None:
        """Nothing changes from step to step."""

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.error(batch).mean(), {}

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        return {"loss": self.error(batch)}

    def error(self, batch: Batch) -> Tensor:
        """Cross-entropy of each clip (B,)."""
        cost = gap_loss if self.recipe.gpt.role == "gaps" else window_loss
        return cost(self.gpt, self.layout, self.condition(batch), self.ids(batch))

    def ids(self, batch: Batch) -> Tensor:
        """Ids (B, t, h, w) of the frames that are learned."""
        ids = batch["latents"] if "latents" in batch else self._encoded(batch["pixels"])
        return ids[:, :: self.recipe.gpt.spacing] if self.recipe.gpt.role == "keys" else ids

    def _encoded(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self.world.device.type, enabled=False):  # a nearest code must not depend on rounding
            return self.tokenizer.encode(pixels)

    def condition(self, batch: Batch) -> Tensor:
        """The conditions' tokens (B, m)."""
        kind = self.recipe.gpt.condition
        if kind == "class":
            return torch.as_tensor(batch["label"]).to(self.world.device).view(-1, 1)
        if kind == "audio":
            return batch["sound"].flatten(1)
        count = len(batch["prompt"])
        tokens = text_tokens(batch["prompt"]) if kind == "text" else torch.zeros(count, 1, dtype=torch.long)
        return tokens.to(self.world.device)

    # --------------------------------------------------------------------------------------------------- to look at

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        """Base: clips. Keys: key frames, played as slowly as they lie apart. Gaps: held-out clips, their middle filled."""
        gpt: Any = modules["gpt"]
        samples, held_out = self.recipe.samples, self.data()[1]
        clips: list[tuple[str, Clip]] = []
        for index in range(min(samples.count, len(held_out))):
            item = held_out[index]
            batch = {key: value[None] if isinstance(value, Tensor) else [value] for key, value in item.items()}
            batch = {
                key: value.to(self.world.device) if isinstance(value, Tensor) else value for key, value in batch.items()
            }
            made = self._sampled(gpt, batch, samples.seed + index)
            apart = self.recipe.gpt.spacing if self.recipe.gpt.role == "keys" else 1
            clips.append((item.get("prompt", ""), Clip(self.tokenizer.decode(made).cpu(), sample_fps(item) / apart)))
        return clips

    def _sampled(self, gpt: GPT, batch: Batch, seed: int) -> Tensor:
        """Ids (1, t, h, w) under the condition of a held-out clip."""
        condition, u = self.condition(batch), self.layout.per_frame
        generator, choice = torch.Generator().manual_seed(seed), self.drawing.choice
        if self.recipe.gpt.role == "gaps":
            ids = self.ids(batch)
            noise = draw_noise([generator], (ids.shape[1] - 2) * u)
            filled = fill_gaps(gpt, self.layout, condition, ids[:, 0], ids[:, -1], noise, choice=choice)
            return torch.cat([ids[:, :1], filled, ids[:, -1:]], 1)
        noise = draw_noise([generator], self.layout.frames_of(gpt) * u)
        return slide(gpt, self.layout, condition, noise, choice=choice, context=self.drawing.context)

    # ------------------------------------------------------------------------------------------------------- export

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        """Save a pipeline: of a base all that makes clips, of keys without what fills the gaps, of gaps with both."""
        own, data, gpt = self.recipe.gpt, self.recipe.data, modules["gpt"]
        writer: Any = gpt if self.keys is None else self.keys
        spacing = 1 if own.role == "base" else own.spacing
        heard = self._heard_per_frame()
        # A window of W frames has the sound of spacing (W - 1) + 1 in front, all but the last of its tokens behind.
        over = writer.config.length + 1 - (self.layout.prefix if not heard else heard * (1 - spacing))
        frames = spacing * (over // (self.layout.per_frame + spacing * heard) - 1) + 1
        TatsPipeline(
            self.tokenizer,
            writer,
            gpt if own.role == "gaps" else None,  # pyright: ignore[reportArgumentType]
            None if self.ears is None else self.ears.tokenizer,
            condition=own.condition,
            classes=list(self.class_names),
            audio_tokens=heard,
            spacing=spacing,
            fps=sample_fps(self.data()[1][0]),
            clip_size=[frames * self.tokenizer.stride[0], data.height, data.width],
            drawing={"top_k": own.top_k, "top_p": own.top_p, "context": own.context},
        ).save_pretrained(str(folder))
