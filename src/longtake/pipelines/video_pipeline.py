"""VideoPipeline: prompt (and given frames) in, clip out. A diffusers pipeline: one folder, `model_index.json` on top.

text     prompt and negative prompt -> T5 states, padded to one length; or the name of a class -> its number
denoise  noise, drawn per clip from its own seed -> latents, over any diffusers scheduler set up for flow matching
decode   latents -> pixels, streamed through the tokenizer

A folder remembers which tokenizer its transformer was trained with and refuses another.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longtake.backbones.converted import Converted
from longtake.backbones.latte import Latte
from longtake.backbones.waver import HybridStreamDiT
from longtake.diffusion.conditions import Conditions, FrameMask, given_frames
from longtake.diffusion.gaussian import noise_denoiser
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import draw_noise, sample, velocity_denoiser
from longtake.errors import BadInput, BadSize, UnknownModel
from longtake.pipelines.classes import class_label
from longtake.pipelines.clock import Clock
from longtake.pipelines.given import Film, Given, Picture, given_ending, given_picture
from longtake.pipelines.limits import check_settings
from longtake.pipelines.records import Record, Seconds, Settings, machine, peak_memory, versions, weights_hash
from longtake.pipelines.schedulers import describe_scheduler
from longtake.pipelines.text import check_prompt, encode_prompts
from longtake.runtime.stack import Stack, stack_of
from longtake.tokenizers.causal_vae import CausalVAE
from longtake.tokenizers.frame_vae import FrameVAE
from longtake.video import Clip

_CUSTOM_PIPELINE = '''"""Lets diffusers load this folder by itself:

DiffusionPipeline.from_pretrained(folder, custom_pipeline="pipeline", trust_remote_code=True)
"""

from longtake.pipelines.video_pipeline import VideoPipeline as VideoPipeline
'''

STEPS, GUIDANCE = 30, 4.0
"""Of a call that does not say."""


@dataclass(frozen=True)
class VideoOutput:
    """What a call gives back.

    Attributes:
        clip: pixels (count, 3, T, H, W) in [-1, 1] with the pipeline's frame rate.
        latents: (count, C, T', H', W'), normalised, as the tokenizer decodes them.
        record: settings, versions, times and memory of the run.
    """

    clip: Clip
    latents: Tensor
    record: Record


class VideoPipeline(DiffusionPipeline):
    """Text, class, picture or clip to video.

    Args:
        tokenizer: pixels <-> latents.
        transformer: predicts the velocity, or the noise.
        text_encoder, text_tokenizer: T5 or UMT5 and its tokenizer; any `transformers` pair of that kind. None for a
            transformer without text.
        scheduler: any of diffusers' that `longtake.diffusion.sampling.prediction_kind` accepts; for flow matching see
            `schedulers.scheduler_named`. May be replaced at any time by assignment.
        fps: frame rate of the clips that it was trained on.
        tokenizer_hash: of the tokenizer that the transformer was trained with; None takes the one that is given.
        classes: names of the transformer's classes, in order; a prompt then is one of them, or empty for none.
        predicts: "velocity", or "noise" (`longtake.diffusion.gaussian`).
        clip_size: frames, height and width of the clips that it was trained on, made unless others are
            asked for; None is 17, 64, 64.

    Raises:
        UnknownModel: the tokenizer is another one than `tokenizer_hash` says. BadSize: networks of unlike widths.
    """

    _optional_components = ["text_encoder", "text_tokenizer"]
    model_cpu_offload_seq = "text_encoder->transformer->tokenizer"

    def __init__(
        self,
        tokenizer: CausalVAE | FrameVAE,
        transformer: HybridStreamDiT | Latte,
        text_encoder: PreTrainedModel | None,
        text_tokenizer: PreTrainedTokenizerBase | None,
        scheduler: SchedulerMixin,
        fps: float = 8.0,
        tokenizer_hash: str | None = None,
        classes: list[str] | None = None,
        predicts: str = "velocity",
        clip_size: list[int] | None = None,
    ):
        super().__init__()
        _check_widths(tokenizer, transformer, text_encoder, len(classes or ()))
        self.register_modules(
            tokenizer=tokenizer,
            transformer=transformer,
            text_encoder=text_encoder,
            text_tokenizer=text_tokenizer,
            scheduler=scheduler,
        )
        # Folders name the front door instead of a module, so that they outlive a move of the module.
        for part in ("tokenizer", "transformer"):
            kind = type(getattr(self, part))
            if kind.__module__.startswith("longtake."):
                self.register_to_config(**{part: ("longtake", kind.__name__)})
        self.register_to_config(fps=fps, tokenizer_hash=tokenizer_hash or _fingerprint(tokenizer))
        self.register_to_config(classes=classes or [], predicts=predicts, clip_size=clip_size or [17, 64, 64])
        self._checked_tokenizer: CausalVAE | FrameVAE | None = None
        self._weights: tuple[tuple[tuple[int, int], ...], str] | None = None
        self.check_tokenizer()

    def check_tokenizer(self) -> None:
        """Raise UnknownModel when the tokenizer is not the one that the transformer was trained with.

        Weights are compared after rounding to bfloat16, so copies in float32 and bfloat16 agree. A float16 copy of
        float32 weights was rounded twice by then and cannot be compared; `load` compares before it casts.
        """
        if self.tokenizer is self._checked_tokenizer or self.tokenizer.dtype == torch.float16:
            return
        found, expected = _fingerprint(self.tokenizer), self.config.tokenizer_hash
        if found != expected:
            raise UnknownModel(
                f"the tokenizer has hash {found[:12]} and the transformer was trained with {expected[:12]}: load the "
                "tokenizer that belongs to it, or train the transformer on this one"
            )
        self._checked_tokenizer = self.tokenizer

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False) -> None:
        """Write `model_index.json` and, for diffusers alone, `pipeline.py`. Called by `save_pretrained`."""
        self.check_tokenizer()
        # Saving in a narrower dtype rounds the weights; the hash is of what was saved.
        self.register_to_config(tokenizer_hash=_fingerprint(self.tokenizer))
        super().save_config(save_directory, push_to_hub)
        (Path(save_directory) / "pipeline.py").write_text(_CUSTOM_PIPELINE)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        seed: int = 0,
        image: Picture | None = None,
        last_image: Picture | None = None,
        continue_from: Film | None = None,
        count: int = 1,
        on_step: Callable[[int, int], None] | None = None,
    ) -> VideoOutput:
        """Make clips.

        Args:
            prompt: what happens; up to 4,000 characters, of which the encoder reads its first tokens. With a model of
                classes the name of one.
            negative_prompt: what to stay away from; takes the place of the empty prompt in guidance.
            frames, height, width: of the clip; 1 + 4n frames and multiples of 8 with the starter's tokenizer. None:
                those that the model was trained on.
            steps: of the scheduler, 1 to 1000.
            guidance: strength of classifier-free guidance, 0 to 100; 1 is none, and takes half the time.
            seed: clip i of `count` is drawn from seed + i and equals the single clip of that seed.
            image, last_image: the first and the last frame. With both, the clip moves from one to the other.
            continue_from: a clip to go on from; the new clip opens with its last frames (5 with the starter).
            count: number of clips, made as one batch.
            on_step: called as on_step(done, steps) after each step.

        Raises:
            BadInput, BadSize, BadImage, BadVideo: an argument out of its range, before any network runs.
            InertMethod: a method that is applied (`longtake.apply`) did nothing.
            Unsupported: a profile is applied that was calibrated for another run than this.
        """
        asked = zip((frames, height, width), self.config.clip_size, strict=True)
        frames, height, width = (own if size is None else size for size, own in asked)
        settings = Settings(prompt, negative_prompt, frames, height, width, steps, guidance, seed, count)
        shape = self.check(settings)
        self.check_tokenizer()
        stack = stack_of(self.transformer)
        if isinstance(self.transformer, Converted):
            self.transformer.receipt()  # what was called before this run is not its own
        if stack is not None:
            stack.admit(self, settings)
        given, settings, notes = self._read_given(settings, image, last_image, continue_from)
        device = self._execution_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        clock = Clock(device)
        guided = settings.guidance != 1 or (stack is not None and stack.guides_at_all)
        conditions = self._conditions(settings, self._frame_condition(given, shape, frames), guided=guided)
        text_seconds = clock.lap()
        latents = self._denoise(settings, shape, conditions, on_step, stack)
        receipts = () if stack is None else tuple(one.to_json() for one in stack.close())
        own = self.transformer.receipt() if isinstance(self.transformer, Converted) else None
        receipts += () if own is None else (own.to_json(),)
        denoise_seconds = clock.lap()
        pixels = torch.cat(list(self.tokenizer.decode_stream(latents)), dim=2)
        seconds = Seconds(text_seconds, denoise_seconds, clock.lap())

        self.maybe_free_model_hooks()
        record = Record(
            settings=settings if stack is None else replace(settings, methods=tuple(map(str, stack.methods))),
            model=str(self.config.get("_name_or_path") or ""),
            weights=self.weights() if stack is None or stack.weights is None else stack.weights,
            scheduler=describe_scheduler(self.scheduler),
            fps=self.config.fps,
            dtype=str(self.transformer.dtype).removeprefix("torch."),
            device=str(device),
            threads=torch.get_num_threads(),
            seconds=seconds,
            peak_memory_bytes=peak_memory(device),
            receipts=receipts,
            warnings=notes,
            versions=versions(),
            machine=machine(),
        )
        return VideoOutput(Clip(pixels.float().cpu(), self.config.fps), latents, record)

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
        seed: int = 0,
    ) -> Settings:
        """What is asked for, with the values of a call that says nothing in place of None; see `check`."""
        asked = zip((frames, height, width), self.config.clip_size, strict=True)
        frames, height, width = (own if size is None else size for size, own in asked)
        steps, guidance = STEPS if steps is None else steps, GUIDANCE if guidance is None else guidance
        return Settings(prompt, negative_prompt, frames, height, width, steps, guidance, seed)

    def check(self, settings: Settings) -> tuple[int, int, int]:
        """Return the latents' (T', H', W') of a run. Raises BadInput or BadSize for a value out of its range."""
        for name in ("prompt", "negative_prompt"):
            if self.text_tokenizer is None:
                class_label(getattr(settings, name), self.config.classes, name=name)
            else:
                check_prompt(getattr(settings, name), self.text_tokenizer, name=name)
        check_settings(settings)
        sizes = settings.frames, settings.height, settings.width
        shape = self.tokenizer.latent_shape(*sizes)
        for name, value, length, patch, stride in zip(
            ("frames", "height", "width"), sizes, shape, self.transformer.patch, self.tokenizer.stride, strict=True
        ):
            if length % patch:
                near = sorted({max(patch, length // patch * patch), (length // patch + 1) * patch})
                fits = [1 + (n - 1) * stride if name == "frames" else n * stride for n in near]
                raise BadSize(
                    f"{name} {value} does not fit this model's patches; nearest: {' or '.join(map(str, fits))}"
                )
        return shape

    def _read_given(
        self, settings: Settings, image: Picture | None, last_image: Picture | None, continue_from: Film | None
    ) -> tuple[dict[str, Given], Settings, tuple[str, ...]]:
        """Read what was given, and note what was changed about it or will not be read."""
        context = 1 + self.tokenizer.stride[0]
        if isinstance(self.transformer, Latte):
            for name, one in (("image", image), ("last_image", last_image), ("continue_from", continue_from)):
                if one is not None:
                    raise BadInput(f"{name} was given, and this model takes no frames: leave it out")
        if image is not None and continue_from is not None:
            raise BadInput("image and continue_from both give the beginning of the clip: give one of them")
        if last_image is not None and settings.frames == 1:
            raise BadInput("last_image needs a clip of more than one frame: ask for more frames, or give it as image")
        if continue_from is not None and settings.frames <= context:
            raise BadInput(
                f"frames is {settings.frames}, and a continued clip opens with {context} frames of the one before: ask "
                f"for at least {context + self.tokenizer.stride[0]}"
            )
        size, given = (settings.height, settings.width), {}
        if image is not None:
            given["image"] = given_picture(image, *size)
        if last_image is not None:
            given["last_image"] = given_picture(last_image, *size, name="last_image")
        if continue_from is not None:
            given["continue_from"] = given_ending(continue_from, context, *size, fps=self.config.fps)
        notes = [note for one in given.values() for note in one.notes]
        for name in ("prompt", "negative_prompt") if self.text_tokenizer is not None else ():
            fit = check_prompt(getattr(settings, name), self.text_tokenizer, name=name)
            if fit.truncated:
                notes.append(f"{name} has {fit.tokens} tokens; the first {fit.limit - 1} and an end mark were read")
        return given, replace(settings, **{name: one.source for name, one in given.items()}), tuple(notes)

    def _conditions(self, settings: Settings, frames: Tensor | None, *, guided: bool = False) -> list[Conditions]:
        """What the denoiser is given for `count` clips: the negative prompt's first, if there is guidance or `guided`.

        Both prompts are padded to one length, so that a batch sees what its members alone would see.
        """
        both = guided or settings.guidance != 1
        prompts = [settings.negative_prompt, settings.prompt] if both else [settings.prompt]
        count = settings.count
        if self.text_tokenizer is None or self.text_encoder is None:
            labels = [class_label(prompt, self.config.classes) for prompt in prompts]
            return [Conditions(labels=torch.full((count,), label)) for label in labels]
        states, mask = encode_prompts(prompts, self.text_tokenizer, self.text_encoder)
        if frames is not None:
            frames = frames.expand(count, -1, -1, -1, -1)
        rows = zip(states.split(1), mask.split(1), strict=True)
        return [Conditions(words.expand(count, -1, -1), read.expand(count, -1), frames) for words, read in rows]

    def _frame_condition(self, given: dict[str, Given], shape: tuple[int, int, int], frames: int) -> Tensor | None:
        """Condition channels (1, C + stride, T', H', W') of the given frames, or None when there are none."""
        if not given:
            return None
        device = self._execution_device
        latents = torch.zeros(1, self.tokenizer.config.latent_channels, *shape, device=device)
        mask = torch.zeros(1, frames, dtype=torch.bool, device=device)
        for name, one in given.items():
            encoded = self.tokenizer.encode(one.pixels.to(device))
            at_end = name == "last_image"
            latents[:, :, slice(-1, None) if at_end else slice(encoded.shape[2])] = encoded
            mask[:, slice(-1, None) if at_end else slice(one.pixels.shape[2])] = True
        black = self.transformer.black_latents
        return given_frames(latents, FrameMask(mask), black, self.tokenizer.stride[0]).pack()

    def _denoise(
        self,
        settings: Settings,
        shape: tuple[int, int, int],
        conditions: list[Conditions],
        on_step: Callable[[int, int], None] | None,
        stack: Stack | None,
    ) -> Tensor:
        """Noise to latents (count, C, T', H', W'), float32; each clip's noise comes from its own seed."""
        generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(settings.count)]
        noise = draw_noise((self.tokenizer.config.latent_channels, *shape), generators)
        *null, cond = conditions
        view = noise_denoiser if self.config.predicts == "noise" else velocity_denoiser
        return sample(
            view(self.transformer),
            self.scheduler,
            noise.to(self._execution_device),
            cond,
            steps=settings.steps,
            null=null[0] if null else None,
            guider=CFG(settings.guidance),
            generators=generators,
            stack=stack,
            encode=lambda prompt: self._conditions(replace(settings, prompt=prompt, guidance=1.0), cond.frames)[0],
            on_step=None if on_step is None else lambda info, _: on_step(info.s + 1, info.S or settings.steps),
        )

    def weights(self) -> str:
        """SHA-256 over all networks, computed again only when a weight was written since."""
        networks = {name: getattr(self, name) for name in ("tokenizer", "transformer", "text_encoder")}
        networks = {name: network for name, network in networks.items() if network is not None}
        stamp = tuple((id(p), p._version) for network in networks.values() for p in network.parameters())
        if self._weights is None or self._weights[0] != stamp:
            self._weights = stamp, weights_hash(networks)
        return self._weights[1]


def _fingerprint(tokenizer: CausalVAE | FrameVAE) -> str:
    """SHA-256 of a tokenizer's weights rounded to bfloat16, and of its statistics: the same in every dtype."""
    statistics = json.dumps([tokenizer.config.get("latents_mean"), tokenizer.config.get("latents_std")])
    weights = weights_hash({"tokenizer": tokenizer}, dtype=torch.bfloat16)
    apart = " per_frame" if tokenizer.config.get("per_frame") else ""
    return hashlib.sha256(f"{weights} {statistics}{apart}".encode()).hexdigest()


def _check_widths(
    tokenizer: CausalVAE | FrameVAE,
    transformer: HybridStreamDiT | Latte,
    text_encoder: PreTrainedModel | None,
    classes: int,
) -> None:
    own = transformer.config
    pairs = [("latent channels", tokenizer.config.latent_channels, own.latent_channels)]
    if isinstance(transformer, Latte):
        pairs.append(("names of classes", classes, own.classes))
    else:
        pairs.append(("frames per latent", tokenizer.stride[0], own.mask_channels))
    if text_encoder is not None:
        pairs.append(("text features", text_encoder.config.d_model, own.text_width))
    for what, have, want in pairs:
        if have != want:
            raise BadSize(f"{have} {what} come in and the transformer takes {want}: load networks that belong together")
