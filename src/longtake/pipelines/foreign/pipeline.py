"""ForeignPipeline: a text-to-video pipeline of diffusers, sampled by the library's own loop.

    pipe = ForeignPipeline(WanPipeline.from_pretrained(...))
    with longtake.apply(pipe, "taylorseer+cfg-interval"):
        output = pipe("a red ball rolls behind a blue cube", seed=0)

Text, noise, timesteps and decoding are the pipeline's own, so that a seed makes the clip that the pipeline itself makes;
in between are our `Denoiser` and our loop, in which whatever guides or samples in another way works as on our own models.

Latents stay float32 between steps, where some pipelines round them to the network's dtype. The code of a learned variance
is not guided, where LattePipeline guides it as well; its published scheduler does not read it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import Denoiser, prediction_kind, sample, velocity_of
from longtake.errors import BadInput, Unsupported
from longtake.pipelines.clock import Clock
from longtake.pipelines.foreign.allegro import Allegro
from longtake.pipelines.foreign.cogvideox import CogVideoX
from longtake.pipelines.foreign.dialect import Dialect
from longtake.pipelines.foreign.hunyuan_video import HunyuanVideo
from longtake.pipelines.foreign.latte import Latte
from longtake.pipelines.foreign.ltx import LTX
from longtake.pipelines.foreign.mochi import Mochi
from longtake.pipelines.foreign.strengths import TwoStrengths
from longtake.pipelines.foreign.wan import Wan
from longtake.pipelines.limits import MAX_GUIDANCE, check_settings
from longtake.pipelines.records import Record, Seconds, Settings, machine, peak_memory, versions, weights_hash
from longtake.pipelines.schedulers import describe_scheduler
from longtake.pipelines.text import check_prompt
from longtake.pipelines.video_pipeline import VideoOutput
from longtake.runtime import StepInfo
from longtake.runtime.hooks import conductor_of
from longtake.runtime.stack import Stack, stack_of
from longtake.video import Clip

DIALECTS: dict[str, type[Dialect]] = {
    kind.pipeline: kind for kind in (Wan, HunyuanVideo, CogVideoX, Latte, LTX, Mochi, Allegro)
}
"""Name of the pipeline's class in diffusers -> how it does it."""


@dataclass(frozen=True)
class Start:
    """All that a sampling loop begins with.

    Args:
        noise: (B, C, T, H, W), standard normal float32.
        cond, null: conditions with the prompt, and with the negative one; None without guidance.
        scheduler: with its timesteps set.
        generators: of each clip, for schedulers that add noise in their steps.
    """

    noise: Tensor
    cond: Conditions
    null: Conditions | None
    scheduler: SchedulerMixin
    generators: list[torch.Generator]


class ForeignPipeline:
    """A pipeline of diffusers that is called as a `VideoPipeline` is. `longtake.apply` takes either of the two.

    Args:
        pipe: one of DIALECTS. It stays as it is, and can be used beside this one.

    Raises:
        Unsupported: a pipeline of another class.
    """

    def __init__(self, pipe: DiffusionPipeline) -> None:
        names = [kind.__name__ for kind in type(pipe).__mro__ if kind.__name__ in DIALECTS]
        if not names:
            raise Unsupported(f"{type(pipe).__name__} cannot be sampled by our loop; use one of {', '.join(DIALECTS)}")
        self.pipe: Any = pipe
        self.dialect = DIALECTS[names[0]](pipe)
        self._weights: tuple[tuple[tuple[int, int], ...], str] | None = None

    @property
    def config(self) -> FrozenDict:
        """The pipeline's, with the frame rate (fps) and the usual frames, height and width (clip_size)."""
        usual = self.dialect.usual
        more = {"fps": self.dialect.fps, "clip_size": [usual.frames, usual.height, usual.width]}
        return FrozenDict({**self.pipe.config, **more})

    @property
    def transformer(self) -> nn.Module:
        """The network, or the one for high noise."""
        return self.pipe.transformer

    @property
    def transformer_2(self) -> nn.Module | None:
        """The network for low noise of Wan 2.2."""
        return getattr(self.pipe, "transformer_2", None)

    @property
    def scheduler(self) -> SchedulerMixin:
        """The pipeline's. What takes its place must be one that the family works with."""
        return self.pipe.scheduler

    @scheduler.setter
    def scheduler(self, scheduler: SchedulerMixin) -> None:
        self.pipe.scheduler = scheduler

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.pipe._execution_device

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_2: float | None = None,
        embedded_guidance: float | None = None,
        seed: int = 0,
        count: int = 1,
        on_step: Callable[[int, int], None] | None = None,
    ) -> VideoOutput:
        """Make clips.

        Args:
            prompt ... on_step: as a call of `VideoPipeline`. None: what the pipeline itself would take.
            guidance: strength of classifier-free guidance; 1 is none. HunyuanVideo's own is 1, see the next.
            guidance_2: of the second network of Wan 2.2; None is as the first. Where that is 1, neither is guided.
            embedded_guidance: strength that HunyuanVideo's network is told; None is 6.

        Returns:
            Clip, latents (count, C, T', H', W') as the scheduler leaves them, and the record.

        Raises:
            BadInput, BadSize: an argument out of its range, before any network runs.
            Unsupported: a scheduler that the family does not work with, or a profile of another run than this.
            InertMethod: a method that is applied did nothing.
        """
        settings = self.settings(
            prompt,
            negative_prompt=negative_prompt,
            frames=frames,
            height=height,
            width=width,
            steps=steps,
            guidance=guidance,
            guidance_2=guidance_2,
            seed=seed,
            count=count,
        )
        denoiser, stack = self.denoiser(embedded_guidance), self.stack()
        if stack is not None:
            stack.admit(self, settings)
        clock = Clock(self.device)
        start = self.prepare(settings, guided=settings.guidance != 1 or (stack is not None and stack.guides_at_all))
        text_seconds = clock.lap()
        latents = sample(
            denoiser,
            start.scheduler,
            start.noise,
            start.cond,
            steps=None,
            null=start.null,
            guider=self.guider(settings, start.scheduler),
            batched=self.dialect.batched,
            generators=start.generators,
            stack=stack,
            encode=lambda prompt: self.dialect.encode(prompt, None)[0].expand(settings.count),
            model_at=lambda t: self.dialect.network_at(t)[0],
            on_step=None if on_step is None else lambda info, _: on_step(info.s + 1, info.S or settings.steps),
        )
        receipts = () if stack is None else tuple(one.to_json() for one in stack.close())
        denoise_seconds = clock.lap()
        pixels = self.decode(latents, settings.frames, settings.height, settings.width)
        seconds = Seconds(text_seconds, denoise_seconds, clock.lap())
        self.pipe.maybe_free_model_hooks()
        record = Record(
            settings=settings if stack is None else replace(settings, methods=tuple(map(str, stack.methods))),
            model=str(self.pipe.config.get("_name_or_path") or ""),
            weights=self.weights(),
            scheduler=describe_scheduler(self.pipe.scheduler),
            fps=self.dialect.fps,
            dtype=str(self.transformer.dtype).removeprefix("torch."),
            device=str(self.device),
            threads=torch.get_num_threads(),
            seconds=seconds,
            peak_memory_bytes=peak_memory(self.device),
            receipts=receipts,
            warnings=self._notes(settings, embedded_guidance),
            versions=versions(),
            machine=machine(),
        )
        return VideoOutput(Clip(pixels.cpu(), self.dialect.fps), latents, record)

    def settings(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_2: float | None = None,
        seed: int = 0,
        count: int = 1,
    ) -> Settings:
        """What is asked for, with the pipeline's own values in place of None. Raises BadInput and BadSize."""
        usual = self.dialect.usual
        settings = Settings(
            prompt,
            negative_prompt,
            usual.frames if frames is None else frames,
            usual.height if height is None else height,
            usual.width if width is None else width,
            usual.steps if steps is None else steps,
            usual.guidance if guidance is None else guidance,
            seed,
            count,
            guidance_2=guidance_2,
        )
        self.check(settings)
        return settings

    def check(self, settings: Settings) -> None:
        """Raise BadInput or BadSize for a value out of its range."""
        for name in ("prompt", "negative_prompt"):
            check_prompt(getattr(settings, name), self.pipe.tokenizer, name=name)
        check_settings(settings)
        if settings.guidance_2 is not None and self.transformer_2 is None:
            raise BadInput(f"guidance_2 was given, and this {self.dialect.pipeline} has one network; use guidance")
        self.dialect.latent_shape(settings.frames, settings.height, settings.width)

    def guider(self, settings: Settings, scheduler: SchedulerMixin) -> CFG | TwoStrengths:
        """How a run is guided, whose scheduler has its timesteps set."""
        own, second = settings.guidance, settings.guidance_2
        if second is None:
            return CFG(own)
        steps: Any = scheduler
        levels = [
            float(sigma)
            for t, sigma in zip(steps.timesteps, steps.sigmas, strict=False)  # behind the last step there is one more
            if self.dialect.network_at(float(t))[0] != "transformer"
        ]
        return TwoStrengths(own, second, own, frozenset(levels))

    def weights(self) -> str:
        """SHA-256 over the denoisers, without any method; computed again only when a weight was written since.

        It takes some seconds a gigabyte. "" where weights are not in memory, as with sequential offloading.
        """
        networks = {"transformer": self.transformer}
        if self.transformer_2 is not None:
            networks["transformer_2"] = self.transformer_2
        stack = self.stack()
        with nullcontext() if stack is None else stack.bare():
            held = [one for network in networks.values() for one in network.state_dict(keep_vars=True).values()]
            stamp = tuple((id(one), one._version) for one in held)
            if self._weights is None or self._weights[0] != stamp:
                there = not any(one.is_meta for one in held)
                self._weights = stamp, weights_hash(networks) if there else ""
        return self._weights[1]

    @torch.no_grad()
    def prepare(self, settings: Settings, *, guided: bool = True) -> Start:
        """Encode the prompts, draw the noise, and set the scheduler's timesteps.

        Args:
            settings: of `settings`.
            guided: whether the prediction without the prompt will be asked for.
        """
        dialect, count = self.dialect, settings.count
        shape = dialect.latent_shape(settings.frames, settings.height, settings.width)
        cond, null = dialect.encode(settings.prompt, settings.negative_prompt if guided else None)
        dialect.set_steps(settings.steps, shape)
        generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(count)]
        noise = dialect.noise(shape, generators).to(self.device)
        null = None if null is None else null.expand(count)
        return Start(noise, cond.expand(count), null, dialect.scheduler, generators)

    def denoiser(self, embedded_guidance: float | None = None) -> Denoiser:
        """The pipeline's networks as a velocity network; methods that are attached to them are told step and branch.

        Args:
            embedded_guidance: strength that HunyuanVideo's network is told; None is its own.

        Raises:
            BadInput: an embedded guidance out of range, or for a family without, or a scheduler of no known prediction.
            Unsupported: a scheduler that the family does not work with.
        """
        dialect = self.dialect
        if embedded_guidance is not None and dialect.embeds is None:
            raise BadInput(f"embedded_guidance was given, and {dialect.pipeline} has none; use guidance")
        if embedded_guidance is not None and not 0 <= embedded_guidance <= MAX_GUIDANCE:
            raise BadInput(f"embedded_guidance is {embedded_guidance!r}: expected a number from 0 to {MAX_GUIDANCE:g}")
        kind = prediction_kind(dialect.scheduler)

        def denoise(x: Tensor, info: StepInfo, conditions: Conditions) -> Tensor:
            name, network = dialect.network_at(info.t)
            sigma = info.noise if info.sigma is None else info.sigma
            given = conditions.to(x.device, network.dtype)
            scale = 1.0 if kind == "flow" else math.hypot(1 - sigma, sigma)  # the family's own sample is x / scale
            with _told(network, replace(info, model=name)):
                made = dialect.predict(network, (x / scale).to(network.dtype), info.t, given, embedded_guidance).float()
            prediction, code = made[:, : x.shape[1]], made[:, x.shape[1] :]
            return torch.cat([velocity_of(kind, prediction, x, sigma), code], dim=1)

        return denoise

    @torch.no_grad()
    def decode(self, latents: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Latents (B, C, T', H', W') of a run -> pixels (B, 3, frames, height, width), float32 in [-1, 1]."""
        return self.dialect.decode(latents, frames, height, width).float().clamp(-1, 1)

    def stack(self) -> Stack | None:
        """The methods that are applied to the networks."""
        return stack_of(self.transformer)

    def _notes(self, settings: Settings, embedded_guidance: float | None) -> tuple[str, ...]:
        words, notes = self.dialect.words, []
        for name in ("prompt", "negative_prompt"):
            tokens = check_prompt(getattr(settings, name), self.pipe.tokenizer, name=name).tokens
            if tokens > words:
                notes.append(f"{name} has {tokens} tokens; the first {words} were read")
        if embedded_guidance is not None:
            notes.append(f"embedded guidance {embedded_guidance:g}")
        return tuple(notes)


@contextmanager
def _told(network: Any, info: StepInfo) -> Iterator[None]:
    """Tell the methods that are attached to a network, and caches of diffusers, which forward the next call is."""
    conductor = conductor_of(network)
    if conductor is not None:
        conductor.announced = info
    try:
        with network.cache_context(info.branch, step_index=info.s, num_inference_steps=info.S, sigma=info.sigma):
            yield
    finally:
        if conductor is not None:
            conductor.announced = None
