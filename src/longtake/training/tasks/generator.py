"""Train the generator on latents, given prompts or classes and sometimes frames.

Flow matching, or noise prediction with a learned variance (`longtake.diffusion.gaussian`).

A text-to-video network learns text to video, image to video, first and last frame, and continuation at once, because a
share of the samples (0.2, as in Waver, arXiv 2508.15761) is given frames in the condition channels. A Latte is given the
number of a class (or text, or nothing), and single images beside the clip where the recipe says so. A share of the
prompts or classes (0.1) is emptied for classifier-free guidance. Noise, noise level, and all such choices belong to each
sample's seed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtake.backbones.waver import HybridStreamDiT
from longtake.data.joint_images import WithImages
from longtake.diffusion.conditions import FrameMask, given_frames
from longtake.diffusion.flow import TIMESTEPS, sigma_sampler
from longtake.diffusion.gaussian import GaussianDiffusion
from longtake.errors import BadRecipe
from longtake.layers.gates import budget_at
from longtake.methods.dynamic.dydit import DyHybrid, DyLatte, budget_term, share_of
from longtake.pipelines.text import encode_prompts, token_limit
from longtake.training.alignment import AlignmentHead, alignment_loss, coverage
from longtake.training.models import build_backbone, build_text, build_tokenizer
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, data_parts
from longtake.training.sources import Sets, class_names, latent_data, sample_fps
from longtake.training.tasks import Batch, seeded_noise
from longtake.video import Clip

HELD_OUT_LEVELS = 8  # noise levels of the held-out loss: the middles of equal shares of (0, 1)


@dataclass(frozen=True)
class Asked:
    """What a batch's clips are conditioned on.

    Args:
        prompts: B of them.
        labels: (B,) classes, `classes` where there is none to be; image_labels: (B, images). None without classes.
        condition: (B, C + stride, T', H', W'), packed given frames, or None.
    """

    prompts: list[str]
    labels: Tensor | None = None
    image_labels: Tensor | None = None
    condition: Tensor | None = None


class GeneratorTask:
    """See `longtake.training.tasks.Task`.

    Batches hold ``prompt``; ``latents`` (B, C, T', H', W') or ``pixels``; with classes ``label``; with single images
    ``images`` (latents or pixels) and ``image_labels``.
    """

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world, objective = recipe, world, recipe.objective
        self.vae = build_tokenizer(recipe.tokenizer).to(world.device).eval().requires_grad_(False)
        self.vae.latent_shape(recipe.data.frames, recipe.data.height, recipe.data.width)  # BadSize before anything runs
        self.backbone = build_backbone(recipe.backbone).to(world.device)
        self.takes_frames = isinstance(self.backbone, HybridStreamDiT)
        config = self.backbone.config
        self.encoder, self.words = None, None
        if self.takes_frames or config.text != "none":
            self.encoder, self.words = build_text(recipe.text)
            self.encoder.to(world.device)
        if self.takes_frames:
            self.backbone.set_black_latents(self.vae)
        self.class_names = class_names(recipe.data) if config.get("classes") else ()
        self.sampler = sigma_sampler(objective.sigmas, objective.shift)
        self.diffusion = GaussianDiffusion(learned_variance=bool(config.get("learned_variance")))
        self._check(config)
        self.modules: dict[str, nn.Module] = {"backbone": self.backbone}
        if recipe.text.train and self.encoder is not None:
            self.modules["text"] = self.encoder
        if objective.alignment:
            self.modules["alignment"] = self.alignment_head().to(world.device)
        self.sets: Sets | None = None
        self.generator = torch.Generator()
        self.step = 0

    def _check(self, config: Any) -> None:
        """Raise BadRecipe for networks, data and objective that do not go together."""
        objective = self.recipe.objective
        noise = objective.predicts == "noise"
        if noise and self.takes_frames:
            raise BadRecipe("objective.predicts: noise is for backbone.kind latte; use velocity.")
        if not noise and config.get("learned_variance"):
            raise BadRecipe(
                "backbone.config.learned_variance: true goes with objective.predicts: noise; set it to false."
            )
        if config.get("classes") and config.classes != len(self.class_names):
            raise BadRecipe(f"backbone.config.classes: {config.classes}, and the data has {len(self.class_names)}.")
        dynamic = isinstance(self.backbone, DyLatte | DyHybrid)
        if objective.alignment and dynamic:
            raise BadRecipe("objective.alignment: not beside backbone.dydit; set it to 0.")
        if objective.budget.share < 1 and not dynamic:
            raise BadRecipe("objective.budget.share: only for networks of backbone.dydit; set it to 1.")
        if objective.budget.temperature <= 0:
            raise BadRecipe(f"objective.budget.temperature: {objective.budget.temperature}; use a number above 0.")
        if objective.strata > 1 and hasattr(self.backbone, "stage_of"):
            raise BadRecipe("objective.strata: a network of backbone.flexdit draws batches of one stage; set it to 1.")
        if objective.images and (self.takes_frames or self.vae.stride[0] != 1):
            raise BadRecipe(
                "objective.images: single images need backbone.kind latte and a tokenizer per frame; use 0."
            )

    def data(self) -> Sets:
        if self.sets is None:
            recipe = self.recipe
            keep = ("instances", "classes") if recipe.objective.alignment else ()
            keep += ("label",) if self.class_names else ()
            train, held_out = latent_data(recipe.data, recipe.seed, self.vae, self.world, keep)
            if recipe.objective.images:
                train = [WithImages(part, recipe.objective.images, recipe.seed) for part in train]
            self.sets = train, held_out
        return self.sets

    def begin(self, step: int) -> None:
        self.step = step

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        latents, objective = self.latents(batch, seeds), self.recipe.objective
        sigmas, dropped, kinds, images_dropped = [], [], [], []
        for seed in seeds:
            generator = self.generator.manual_seed(seed)
            sigmas.append(self.level(generator, sigmas))
            drop, image, kind = torch.rand(3, generator=generator).tolist()
            dropped.append(drop < objective.prompt_dropout)
            kinds.append(self.kind_of(kind) if image < objective.image_rate and self.takes_frames else None)
            images_dropped.append(torch.rand(objective.images, generator=generator) < objective.prompt_dropout)
        prompts = ["" if drop else prompt for drop, prompt in zip(dropped, batch["prompt"], strict=True)]
        labels, own = self.labels(batch, torch.tensor(dropped), torch.stack(images_dropped))
        asked = Asked(prompts, labels, own, self.condition(batch, latents, kinds, seeds))
        if objective.images:
            latents = torch.cat([latents, batch["images"].float()], dim=2)
        noise = seeded_noise(tuple(latents.shape[1:]), [seed ^ 1 for seed in seeds], latents.device)
        if isinstance(self.backbone, DyLatte | DyHybrid):
            return self.budgeted(latents, noise, torch.cat(sigmas), asked, seeds)
        if not objective.alignment:
            each, parts, _ = self.error(latents, noise, torch.cat(sigmas), asked)
            return each.mean(), {name: value.mean() for name, value in parts.items()}
        each, _, states = self.error(latents, noise, torch.cat(sigmas), asked, objective.alignment_block)
        flow, alignment = each.mean(), self.alignment(states, batch)
        return flow + objective.alignment * alignment, {"flow": flow.detach(), "alignment": alignment.detach()}

    def budgeted(
        self, latents: Tensor, noise: Tensor, sigma: Tensor, asked: Asked, seeds: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a network that chooses its width and tokens: its error, that with everything on, and its budget's."""
        budget = self.recipe.objective.budget
        target = budget_at(self.step, budget.share, budget.hold, budget.fall)
        settled = budget.settle is not None and self.step >= budget.settle
        own_seeds = [seed ^ 8 for seed in seeds]
        with self.backbone.drawing(own_seeds, settled=settled, temperature=budget.temperature) as routing:
            each, _, _ = self.error(latents, noise, sigma, asked)
        own, share = each.mean(), share_of(routing.spent)
        loss = own + budget_term(share, target)
        if self.step < budget.whole:
            with self.backbone.drawing(None):
                loss = loss + self.error(latents, noise, sigma, asked)[0].mean()
        return loss, {"dynamic": own.detach(), "share": share.detach()}

    def level(self, generator: torch.Generator, before: list[Tensor]) -> Tensor:
        """A sample's noise level (1,), drawn behind those of the batch before it.

        A network of stages takes batches of one: the first sample's decides, and the others are drawn until they are in
        it. A stage then is as frequent as its levels are.
        """
        strata = self.recipe.objective.strata
        if strata > 1:
            return self.sampler(1, generator, stratum=len(before) % strata, strata=strata)
        level, stage_of = self.sampler(1, generator), getattr(self.backbone, "stage_of", None)
        while stage_of and before and stage_of(self.timestep(level)) != stage_of(self.timestep(before[0])):
            level = self.sampler(1, generator)
        return level

    def timestep(self, sigma: Tensor) -> Tensor:
        """What the network is given at noise levels (B,)."""
        if self.recipe.objective.predicts == "noise":
            return (sigma * self.diffusion.steps).long().clamp_max(self.diffusion.steps - 1)
        return sigma * TIMESTEPS

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        latents = self.latents(batch, seeds)
        noise = seeded_noise(tuple(latents.shape[1:]), seeds, latents.device)
        labels, _ = self.labels(batch, torch.zeros(len(seeds), dtype=torch.bool), torch.zeros(len(seeds), 0).bool())
        sums: dict[str, Tensor] = {}
        for level in range(HELD_OUT_LEVELS):
            sigma = torch.full((len(seeds),), (level + 0.5) / HELD_OUT_LEVELS)
            each, parts, _ = self.error(latents, noise, sigma, Asked(batch["prompt"], labels))
            for name, value in {"loss": each, **parts}.items():
                sums[name] = sums.get(name, 0) + value.detach() / HELD_OUT_LEVELS
        return sums

    def error(
        self, latents: Tensor, noise: Tensor, sigma: Tensor, asked: Asked, states_after: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Loss of each sample (B,), its named parts if it has any, and the tokens (B, N, D) behind a block if asked.

        sigma (B,) in [0, 1] is the noise level, or the share of all steps at which the noise is predicted.
        """
        states, mask = self.text(asked.prompts)
        extra: dict[str, Any] = {} if asked.labels is None else {"labels": asked.labels}
        if self.recipe.objective.images:
            extra |= {"images": latents.shape[2] - self.length(latents), "image_labels": asked.image_labels}
        if states_after is not None:
            extra["states_after"] = states_after
        tokens: list[Tensor] = []

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            made = self.backbone(noisy, timestep, states, mask, asked.condition, **extra)
            if states_after is not None:
                made, seen = made
                tokens.append(seen)
            return made

        sigma = sigma.to(latents.device)
        if self.recipe.objective.predicts == "noise":
            found = self.diffusion(predict, latents, timestep=self.timestep(sigma), noise=noise)
            return found.each, {"noise": found.noise, "bound": found.bound}, None
        velocity = predict(torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1, 1)), self.timestep(sigma))
        each = (velocity.float() - (noise - latents)).square().flatten(1).mean(1)
        return each, {}, tokens[0] if tokens else None

    def length(self, latents: Tensor) -> int:
        """Latent frames of a clip, without single images."""
        data = self.recipe.data
        return min(latents.shape[2], self.vae.latent_shape(data.frames, data.height, data.width)[0])

    def labels(self, batch: Batch, dropped: Tensor, images_dropped: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Classes of the clips (B,) and of their images (B, images), the null class where they are dropped or unknown."""
        if not self.class_names:
            return None, None
        null, device = len(self.class_names), self.world.device

        def known(values: Any, drop: Tensor) -> Tensor:
            values = torch.as_tensor(values).to(device)
            return torch.where(drop.to(device) | (values < 0), null, values)

        own = known(batch["image_labels"], images_dropped) if "image_labels" in batch else None
        return known(batch["label"], dropped), own

    def alignment_head(self) -> AlignmentHead:
        """The head that reads the scene off the backbone's tokens."""
        from longtake.data.scenes.store import CLASSES

        if not self.takes_frames:
            raise BadRecipe("objective.alignment: only for backbone.kind waver; set it to 0.")
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
        rows = tuple(n // p for n, p in zip(sizes[-3:], self.backbone.config.patch, strict=True))
        truth = batch["classes"]
        head = self.modules["alignment"]
        return alignment_loss(head(states), head.classes, coverage(batch["instances"], truth.shape[1], rows), truth)

    def text(self, prompts: list[str]) -> tuple[Tensor | None, Tensor | None]:
        """States (B, L, D) and mask (B, L) of prompts, with gradients when the encoder is trained too; or none."""
        if self.encoder is None or self.words is None:
            return None, None
        if not self.recipe.text.train:
            with torch.autocast(self.world.device.type, enabled=False):
                return encode_prompts(prompts, self.words, self.encoder)
        read = self.words(
            prompts, padding="longest", truncation=True, max_length=token_limit(self.words), return_tensors="pt"
        )
        ids, mask = read["input_ids"].to(self.world.device), read["attention_mask"].to(self.world.device)
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None], mask.bool()

    def latents(self, batch: Batch, seeds: list[int]) -> Tensor:
        """The batch's latents in float32; pixels are encoded, and what else of them may be needed."""
        if "latents" not in batch:
            with torch.no_grad():
                batch["latents"] = self.encoded(batch["pixels"], [seed ^ 2 for seed in seeds])
                if self.takes_frames:
                    batch["last_image_latents"] = self.vae.encode(batch["pixels"][:, :, -1:])
                if "images" in batch:
                    batch["images"] = self.encoded(batch["images"], [seed ^ 4 for seed in seeds])
        return batch["latents"].float()

    def encoded(self, pixels: Tensor, seeds: list[int]) -> Tensor:
        """Latents of pixels: the posterior's mean, or a draw of each sample's seed where the recipe says so."""
        if not self.recipe.tokenizer.draw:
            return self.vae.encode(pixels)
        mean, logvar = self.vae.posterior(pixels)
        return self.vae.normalise(mean + (0.5 * logvar).exp() * seeded_noise(mean.shape[1:], seeds, mean.device))

    def kind_of(self, u: float) -> str:
        """Which frames are given, at a uniform number in [0, 1)."""
        o = self.recipe.objective
        u *= o.first + o.first_last + o.continuation
        return "first" if u < o.first else "first_last" if u < o.first + o.first_last else "continuation"

    def condition(self, batch: Batch, latents: Tensor, kinds: list[str | None], seeds: list[int]) -> Tensor | None:
        """Condition channels (B, C + stride, T', H', W'), or None when no sample is given frames."""
        length, stride = latents.shape[2], self.vae.stride[0]
        if not self.takes_frames or length == 1 or all(kind is None for kind in kinds):
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
        """Clips of the recipe's prompts, or else of classes, or of held-out prompts."""
        samples, data = self.recipe.samples, self.recipe.data
        _, held_out = self.data()
        prompts = samples.prompts[: samples.count]
        if not prompts and self.class_names:
            step = max(1, len(self.class_names) // samples.count)
            prompts = list(self.class_names[::step][: samples.count])
        if not prompts:
            spoken = self.words is not None
            prompts = [held_out[i]["prompt"] if spoken else "" for i in range(min(samples.count, len(held_out)))]
        pipe = self.pipeline(modules)
        clips = []
        for index, prompt in enumerate(prompts):
            made = pipe(
                prompt,
                frames=data.frames,
                height=data.height,
                width=data.width,
                steps=samples.steps,
                guidance=samples.guidance if self.words is not None or self.class_names else 1.0,
                seed=samples.seed + index,
            )
            clips.append((prompt, made.clip))
        return clips

    def pipeline(self, modules: dict[str, nn.Module]) -> Any:
        """A `VideoPipeline` of the given networks and this training's frozen ones."""
        from longtake.pipelines import VideoPipeline
        from longtake.pipelines.schedulers import noise_scheduler, scheduler_named

        _, held_out = self.data()
        predicts, data = self.recipe.objective.predicts, self.recipe.data
        flow = predicts == "velocity"
        return VideoPipeline(
            tokenizer=self.vae,
            transformer=modules["backbone"],  # type: ignore[arg-type]
            text_encoder=modules.get("text", self.encoder),  # type: ignore[arg-type]
            text_tokenizer=self.words,
            scheduler=scheduler_named("euler", shift=self.recipe.objective.shift) if flow else noise_scheduler(),
            fps=sample_fps(held_out[0]),
            classes=list(self.class_names),
            predicts=predicts,
            clip_size=[data.frames, data.height, data.width],
        )

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        self.pipeline(modules).save_pretrained(str(folder))
