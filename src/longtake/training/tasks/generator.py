"""Train the generator: flow matching on latents, given prompts and sometimes frames.

One set of weights learns text to video, image to video, first and last frame, and continuation, because a share of the
samples (0.2, as in Waver, arXiv 2508.15761) is given frames in the condition channels. A share of the prompts (0.1) is
emptied for classifier-free guidance. Noise, noise level, and both choices belong to each sample's seed.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtake.diffusion.conditions import FrameMask, given_frames
from longtake.diffusion.flow import TIMESTEPS, sigma_sampler
from longtake.errors import BadRecipe
from longtake.pipelines.text import encode_prompts, token_limit
from longtake.training.alignment import AlignmentHead, alignment_loss, coverage
from longtake.training.models import build_backbone, build_text, build_tokenizer
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, data_parts
from longtake.training.sources import Sets, latent_data, sample_fps
from longtake.training.tasks import Batch, seeded_noise
from longtake.video import Clip

HELD_OUT_SIGMAS = 8  # noise levels of the held-out loss: the middles of equal shares of (0, 1)


class GeneratorTask:
    """See `longtake.training.tasks.Task`. Batches hold ``prompt`` and ``latents`` (B, C, T', H', W') or ``pixels``."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.vae = build_tokenizer(recipe.tokenizer).to(world.device).eval().requires_grad_(False)
        self.vae.latent_shape(recipe.data.frames, recipe.data.height, recipe.data.width)  # BadSize before anything runs
        self.encoder, self.words = build_text(recipe.text)
        self.encoder.to(world.device)
        self.backbone = build_backbone(recipe.backbone).to(world.device)
        self.backbone.set_black_latents(self.vae)
        self.sampler = sigma_sampler(recipe.objective.sigmas, recipe.objective.shift)
        self.modules: dict[str, nn.Module] = {"backbone": self.backbone}
        if recipe.text.train:
            self.modules["text"] = self.encoder
        if recipe.objective.alignment:
            self.modules["alignment"] = self.alignment_head().to(world.device)
        self.sets: Sets | None = None
        self.generator = torch.Generator()

    def data(self) -> Sets:
        if self.sets is None:
            semantics = self.recipe.objective.alignment > 0
            self.sets = latent_data(self.recipe.data, self.recipe.seed, self.vae, self.world, semantics=semantics)
        return self.sets

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self.latents(batch)
        objective = self.recipe.objective
        sigmas, prompts, kinds = [], [], []
        for prompt, seed in zip(batch["prompt"], seeds, strict=True):
            generator = self.generator.manual_seed(seed)
            sigmas.append(self.sampler(1, generator))
            drop, image, kind = torch.rand(3, generator=generator).tolist()
            prompts.append("" if drop < objective.prompt_dropout else prompt)
            kinds.append(self.kind_of(kind) if image < objective.image_rate else None)
        noise = seeded_noise(tuple(latents.shape[1:]), [seed ^ 1 for seed in seeds], latents.device)
        condition = self.condition(batch, latents, kinds, seeds)
        if not objective.alignment:
            return self.flow(latents, noise, torch.cat(sigmas), prompts, condition)[0].mean(), {}
        each, states = self.flow(latents, noise, torch.cat(sigmas), prompts, condition, objective.alignment_block)
        flow, alignment = each.mean(), self.alignment(states, batch)
        return flow + objective.alignment * alignment, {"flow": flow.detach(), "alignment": alignment.detach()}

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        latents = self.latents(batch)
        noise = seeded_noise(tuple(latents.shape[1:]), seeds, latents.device)
        total = torch.zeros(len(seeds), device=latents.device)
        for level in range(HELD_OUT_SIGMAS):
            sigma = torch.full((len(seeds),), (level + 0.5) / HELD_OUT_SIGMAS)
            total += self.flow(latents, noise, sigma, batch["prompt"], None)[0]
        return {"loss": total / HELD_OUT_SIGMAS}

    def flow(
        self,
        latents: Tensor,
        noise: Tensor,
        sigma: Tensor,
        prompts: list[str],
        condition: Tensor | None,
        states_after: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Squared error of the velocity, mean over each sample (B,), and the tokens (B, N, D) behind a block if asked.

        sigma (B,) in [0, 1]; the rest (B, C, T, H, W).
        """
        sigma = sigma.to(latents.device)
        noisy = torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1, 1))
        states, mask = self.text(prompts)
        made = self.backbone(noisy, sigma * TIMESTEPS, states, mask, condition, states_after=states_after)
        velocity, tokens = (made, None) if states_after is None else made
        return (velocity.float() - (noise - latents)).square().flatten(1).mean(1), tokens

    def alignment_head(self) -> AlignmentHead:
        """The head that reads the scene off the backbone's tokens."""
        from longtake.data.scenes.store import CLASSES

        config, block = self.backbone.config, self.recipe.objective.alignment_block
        depth = config.dual_blocks + config.single_blocks
        if not 1 <= block <= depth:
            raise BadRecipe(f"objective.alignment_block: {block} of {depth} blocks; use 1 to {depth}.")
        if any(part.kind != "scenes" for part in data_parts(self.recipe.data)):
            raise BadRecipe("objective.alignment: only scenes say what each token shows; set it to 0 for other data.")
        return AlignmentHead(config.width, tuple(len(names) for names in CLASSES))

    def alignment(self, states: Tensor | None, batch: Batch) -> Tensor:
        """Loss of the head on tokens (B, N, D) of a batch that holds "instances" and "classes"."""
        assert states is not None
        sizes = self.vae.latent_shape(*batch["instances"].shape[1:2], self.recipe.data.height, self.recipe.data.width)
        grid = tuple(n // p for n, p in zip(sizes[-3:], self.backbone.config.patch, strict=True))
        truth = batch["classes"]
        head = self.modules["alignment"]
        return alignment_loss(head(states), head.classes, coverage(batch["instances"], truth.shape[1], grid), truth)

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, D) and mask (B, L) of prompts; with gradients when the encoder is trained too."""
        if not self.recipe.text.train:
            with torch.autocast(self.world.device.type, enabled=False):
                return encode_prompts(prompts, self.words, self.encoder)
        read = self.words(
            prompts, padding="longest", truncation=True, max_length=token_limit(self.words), return_tensors="pt"
        )
        ids, mask = read["input_ids"].to(self.world.device), read["attention_mask"].to(self.world.device)
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None], mask.bool()

    def latents(self, batch: Batch) -> Tensor:
        """The batch's latents in float32; pixels are encoded, and their last frames where they may be needed."""
        if "latents" not in batch:
            with torch.no_grad():
                batch["latents"] = self.vae.encode(batch["pixels"])
                batch["last_image_latents"] = self.vae.encode(batch["pixels"][:, :, -1:])
        return batch["latents"].float()

    def kind_of(self, u: float) -> str:
        """Which frames are given, at a uniform number in [0, 1)."""
        o = self.recipe.objective
        u *= o.first + o.first_last + o.continuation
        return "first" if u < o.first else "first_last" if u < o.first + o.first_last else "continuation"

    def condition(self, batch: Batch, latents: Tensor, kinds: list[str | None], seeds: list[int]) -> Tensor | None:
        """Condition channels (B, C + stride, T', H', W'), or None when no sample is given frames."""
        length, stride = latents.shape[2], self.vae.stride[0]
        if length == 1 or all(kind is None for kind in kinds):
            return None
        given = torch.zeros(len(kinds), 1 + stride * (length - 1), dtype=torch.bool)
        frames = latents.clone()
        for row, (kind, seed) in enumerate(zip(kinds, seeds, strict=True)):
            if kind is None:
                continue
            given[row, 0] = True
            if kind == "first_last":  # the last picture is given as itself, not as the end of its group of frames
                given[row, -1] = True
                frames[row, :, -1:] = batch["last_image_latents"][row]
            if kind == "continuation":  # two latent frames, or more up to about half of them, but never all
                known = min(2 + seed % max(1, (length - 1) // 2), max(1, length - 1))
                given[row, : 1 + stride * (known - 1)] = True
        return given_frames(frames, FrameMask(given.to(latents.device)), self.backbone.black_latents, stride).pack()

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        """Clips of the recipe's prompts, or else of held-out ones."""
        samples, data = self.recipe.samples, self.recipe.data
        _, held_out = self.data()
        prompts = samples.prompts[: samples.count]
        if not prompts:
            prompts = [held_out[i]["prompt"] for i in range(min(samples.count, len(held_out)))]
        pipe = self.pipeline(modules)
        clips = []
        for index, prompt in enumerate(prompts):
            made = pipe(
                prompt,
                frames=data.frames,
                height=data.height,
                width=data.width,
                steps=samples.steps,
                guidance=samples.guidance,
                seed=samples.seed + index,
            )
            clips.append((prompt, made.clip))
        return clips

    def pipeline(self, modules: dict[str, nn.Module]) -> Any:
        """A `VideoPipeline` of the given networks and this training's frozen ones."""
        from longtake.pipelines import VideoPipeline
        from longtake.pipelines.schedulers import scheduler_named

        _, held_out = self.data()
        return VideoPipeline(
            tokenizer=self.vae,
            transformer=modules["backbone"],  # type: ignore[arg-type]
            text_encoder=modules.get("text", self.encoder),  # type: ignore[arg-type]
            text_tokenizer=self.words,
            scheduler=scheduler_named("euler", shift=self.recipe.objective.shift),
            fps=sample_fps(held_out[0]),
        )

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        self.pipeline(modules).save_pretrained(str(folder))
