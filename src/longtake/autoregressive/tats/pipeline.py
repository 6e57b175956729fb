"""TatsPipeline: a prompt in, a clip of any length out. A diffusers pipeline: one folder, `model_index.json` on top.

condition   a class, a text, a sound, or nothing -> tokens in front of the video's; of a sound, those of each window
draw        tokens by a sliding window, or key frames and the gaps between them -> ids; each clip from its own seed
decode      ids -> pixels, in pieces

A folder remembers which tokenizers its transformers were trained with and refuses others.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from longtake.autoregressive.tats.drawing import Drawing
from longtake.autoregressive.tats.hearing import stretch_tokens
from longtake.autoregressive.tats.hierarchy import gap_length, hierarchical, key_frames
from longtake.autoregressive.tats.layout import Layout, layout, text_tokens
from longtake.autoregressive.tats.windows import Tally, slide, slide_in_space
from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import draw_noise
from longtake.errors import BadInput, BadSize, UnknownModel
from longtake.pipelines.classes import class_label
from longtake.pipelines.clock import Clock
from longtake.pipelines.given_sound import Audio, GivenSound, given_sound
from longtake.pipelines.limits import check_settings
from longtake.pipelines.records import Record, Seconds, Settings, machine, peak_memory, versions, weights_hash
from longtake.pipelines.video_pipeline import VideoOutput
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.video import Clip


class TatsPipeline(DiffusionPipeline):
    """Class, text, sound or nothing to video, by transformers over a tokenizer's ids.

    Args:
        tokenizer: pixels <-> ids; it stays in float32, because a nearest code must not depend on rounding.
        transformer: the base, or with `spacing` above 1 the one of key frames (GPT-A).
        interpolator: GPT-B, which fills the gaps between key frames; None without a hierarchy.
        audio_tokenizer: spectrograms <-> ids, for the condition "audio".
        condition: "none", "class", "text" or "audio".
        classes: names of the classes, in order; a prompt then is one of them.
        audio_tokens: ids that the sound of a latent frame has.
        spacing: latent frames from one frame that the transformer writes to the next; 1 for a base.
        fps: frame rate of the clips that it was trained on.
        clip_size: frames, height and width of these, made unless others are asked for.
        drawing: fields of `Drawing`.
        tokenizer_hash, audio_tokenizer_hash: of the tokenizers that the transformers were trained with; None takes those
            that are given.

    Raises:
        UnknownModel: a tokenizer is another one than its hash says.
        BadSize: networks of other sizes than the tokenizer and the condition make. BadInput: sizes that are missing.
    """

    _optional_components = ["interpolator", "audio_tokenizer"]
    model_cpu_offload_seq = "transformer->interpolator->tokenizer"
    exact = ("tokenizer", "audio_tokenizer")  # stay in float32 whatever is asked for

    def __init__(
        self,
        tokenizer: VQGAN3d,
        transformer: GPT,
        interpolator: GPT | None = None,
        audio_tokenizer: VQGAN3d | None = None,
        condition: str = "none",
        classes: list[str] | None = None,
        audio_tokens: int = 0,
        spacing: int = 1,
        fps: float = 8.0,
        clip_size: list[int] | None = None,
        drawing: dict[str, Any] | None = None,
        tokenizer_hash: str | None = None,
        audio_tokenizer_hash: str | None = None,
    ):
        super().__init__()
        parts = {
            "tokenizer": tokenizer,
            "transformer": transformer,
            "interpolator": interpolator,
            "audio_tokenizer": audio_tokenizer,
        }
        self.register_modules(**parts)
        # Folders name the front door instead of a module, so that they outlive a move of the module.
        self.register_to_config(
            **{part: ("longtake", type(network).__name__) for part, network in parts.items() if network is not None}
        )
        found = _checked_hash(tokenizer, tokenizer_hash, "tokenizer")
        heard = None
        if audio_tokenizer is not None:
            heard = _checked_hash(audio_tokenizer, audio_tokenizer_hash, "audio tokenizer")
        self.register_to_config(
            condition=condition,
            classes=classes or [],
            audio_tokens=audio_tokens,
            spacing=spacing,
            fps=fps,
            clip_size=clip_size or [16, 128, 128],
            drawing=asdict(Drawing.of(drawing)),
            tokenizer_hash=found,
            audio_tokenizer_hash=heard,
        )
        self._weights: tuple[tuple[tuple[int, int], ...], str] | None = None
        self._check_networks()

    @property
    def layout(self) -> Layout:
        """How the transformer writes a clip of the size that it was trained on."""
        config = self.config
        frames, rows, columns = self.tokenizer.latent_shape(*config.clip_size)
        audio = 0 if self.audio_tokenizer is None else self.audio_tokenizer.config.codes
        return layout(
            config.condition,
            codes=self.tokenizer.config.codes,
            rows=rows,
            columns=columns,
            classes=len(config.classes),
            audio=(frames * config.audio_tokens, audio),
        )

    @property
    def gap_layout(self) -> Layout:
        """How the interpolator writes a gap: as the transformer, but for the length of a sound."""
        own = self.layout
        heard = self.config.condition == "audio"
        return replace(own, prefix=(self.config.spacing + 1) * self.config.audio_tokens) if heard else own

    def _check_networks(self) -> None:
        own, spacing = self.layout, self.config.spacing
        if self.interpolator is not None and spacing < 2:
            raise BadInput(
                f"spacing {spacing} has no gaps to fill; leave the interpolator out, or give the spacing of keys"
            )
        for name in ("transformer", "interpolator"):
            gpt = getattr(self, name)
            if gpt is not None and gpt.config.vocabulary != own.vocabulary:
                raise BadSize(
                    f"the {name} has a vocabulary of {gpt.config.vocabulary}, and condition and codes make "
                    f"{own.vocabulary}: load networks that belong together"
                )
        if own.frames_of(self.transformer) < 1:
            raise BadSize(f"the transformer has {self.transformer.config.length} positions; expected a latent frame's")
        frames, given = self.tokenizer.latent_shape(*self.config.clip_size)[0], self.audio_tokenizer
        if self.config.condition == "audio" and spacing * (own.frames_of(self.transformer) - 1) + 1 != frames:
            raise BadSize(
                f"the transformer has {self.transformer.config.length} positions, which are not those of {frames} latent "
                "frames and their sound: give the clip_size that it was trained on"
            )
        if given is not None and given.stride[0] != self.tokenizer.stride[0]:
            raise BadSize(
                f"the audio tokenizer makes ids of {given.stride[0]} frames and the tokenizer of "
                f"{self.tokenizer.stride[0]}: train them with the same downsample in time"
            )
        length = gap_length(self.gap_layout, spacing)
        published = length - 1  # without a position for the last token
        if self.interpolator is not None and self.interpolator.config.length not in (published, published + 1):
            raise BadSize(
                f"the interpolator has {self.interpolator.config.length} positions, and a gap of spacing {spacing} has "
                f"{length}"
            )

    # ------------------------------------------------------------------------------------------------ what is asked

    def settings(
        self,
        prompt: str = "",
        *,
        negative_prompt: str = "",
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        drawing: Mapping[str, Any] | None = None,
    ) -> Settings:
        """What is asked for, with the values of a call that says nothing in place of None; see `check`."""
        asked = zip((frames, height, width), self.config.clip_size, strict=True)
        frames, height, width = (own if size is None else size for size, own in asked)
        steps, guidance = 1 if steps is None else steps, 1.0 if guidance is None else guidance
        drawn = asdict(Drawing.of({**self.config.drawing, **(drawing or {})}))
        return Settings(prompt, negative_prompt, frames, height, width, steps, guidance, seed, drawing=drawn)

    def check(self, settings: Settings) -> tuple[int, int, int]:
        """Return the ids' (t, h, w) of a run. Raises BadInput or BadSize for a value out of its range."""
        check_settings(settings)
        for name, value, only in (
            ("negative_prompt", settings.negative_prompt, ""),
            ("steps", settings.steps, 1),
            ("guidance", settings.guidance, 1),
        ):
            if value != only:
                raise BadInput(f"{name} is {value!r}, and this model draws tokens one by one, without it: leave it out")
        without = {"none": "is unconditional", "audio": "hears sound alone"}.get(self.config.condition)
        if without and settings.prompt.strip():
            raise BadInput(f"prompt is '{settings.prompt[:40]}', and this model {without}: leave it empty")
        shape = self.tokenizer.latent_shape(settings.frames, settings.height, settings.width)
        own = self.layout
        if shape[1:] != (own.rows, own.columns) and tuple(self.transformer.config.grid or ())[1:] != shape[1:]:
            height, width = self.config.clip_size[1:]
            raise BadSize(
                f"{settings.width}x{settings.height} is not the {width}x{height} that this model was trained on"
            )
        if self.config.spacing > 1 and self.interpolator is None:
            raise BadInput(
                "this model writes key frames, and what fills the gaps between them is missing: train 'gaps'"
            )
        return shape

    def condition(self, prompt: str) -> Tensor:
        """The condition's tokens, int64 (1, m): of a class by its name, of a text of at most 255 bytes, or of nothing.

        Raises:
            BadInput, UnknownName: a prompt that is none. BadInput: a model that hears sound, see `hear`.
        """
        kind = self.config.condition
        if kind == "audio":
            raise BadInput("audio is missing, and this model makes clips to sounds: give one, in a file with --audio")
        if kind == "text":
            return text_tokens([prompt])
        if kind == "class":
            label = class_label(prompt, self.config.classes)
            if label == len(self.config.classes):
                raise BadInput(f"prompt is empty; name one of the {label} classes, such as '{self.config.classes[0]}'")
            return torch.tensor([[label]])
        return torch.zeros(1, 1, dtype=torch.long)

    def hear(self, heard: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        """A sound's tokens in front of each window (1, S, m), and of each gap (1, G, m') where there are gaps.

        Args:
            heard: spectrogram (1, 1, T, rows, columns) in [-1, 1]; behind its end it is silent.
            frames: latent frames of the video.

        Raises:
            BadInput, BadSize: a spectrogram of another size than the model was trained on.
        """
        ears, spacing = self.audio_tokenizer, self.config.spacing
        keys, window = key_frames(frames, spacing), self.layout.frames_of(self.transformer)
        starts = [spacing * key for key in range(max(1, keys - window + 1))]
        found = [stretch_tokens(ears, heard, starts, spacing * (window - 1) + 1)]
        if self.interpolator is not None:
            found.append(stretch_tokens(ears, heard, [spacing * key for key in range(max(1, keys - 1))], spacing + 1))
        if found[0].shape[2] != self.layout.prefix:
            raise BadInput(f"audio of {found[0].shape[2]} tokens; this model reads {self.layout.prefix}")
        return found[0], found[1] if len(found) > 1 else None

    def given(self, audio: Audio | None, settings: Settings) -> GivenSound | None:
        """The sound of a run, None without. Raises BadInput, BadSound: one that is missing, not wanted, or too short."""
        kind = self.config.condition
        if audio is None or kind != "audio":
            if audio is not None:
                raise BadInput(f"audio was given, and this model's condition is '{kind}': leave it out")
            return None
        step, spacing = self.tokenizer.stride[0], self.config.spacing
        keys = key_frames(settings.frames // step, spacing)
        reach = max(self.config.clip_size[0], step * (spacing * (keys - 1) + 1))
        return given_sound(audio, settings.frames, self.config.fps, reach=reach, step=step)

    # ------------------------------------------------------------------------------------------------------- a run

    @torch.no_grad()
    def __call__(
        self,
        prompt: str = "",
        *,
        negative_prompt: str = "",
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        audio: Audio | None = None,
        count: int = 1,
        drawing: Mapping[str, Any] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> VideoOutput:
        """Make clips.

        Args:
            prompt: see `condition`; empty with a sound.
            audio: for the condition "audio", and as long as the clip: a file, a `Sound` at 16 kHz, or a spectrogram
                (1, 1, T, 64, 16) in [-1, 1]. The clip carries it, but for a spectrogram. Each window hears its own frames.
            frames: of the clip, any multiple of the tokenizer's stride in time; None: as many as it was trained on.
            height, width: as it was trained on; larger for a transformer with a table of places of that size.
            seed: clip i of `count` is drawn from seed + i and equals the single clip of that seed.
            count: number of clips, made as one batch.
            drawing: fields of `Drawing` that differ from the folder's own.
            on_step: called as on_step(done, tokens) after each token of the batch.
            negative_prompt, steps, guidance: of other pipelines; only "", 1 and 1 are taken.

        Raises:
            BadInput, BadSize, BadSound, UnknownName: an argument out of its range, before any network runs.
        """
        settings = self.settings(
            prompt,
            negative_prompt=negative_prompt,
            frames=frames,
            height=height,
            width=width,
            steps=steps,
            guidance=guidance,
            seed=seed,
            drawing=drawing,
        )
        settings = replace(settings, count=count)
        shape = self.check(settings)
        sound = self.given(audio, settings)
        settings = replace(settings, audio=None if sound is None else sound.source)
        device = self._execution_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        clock = Clock(device)
        made = (self.condition(prompt), None) if sound is None else self.hear(sound.spectrogram, shape[0])
        condition, of_gaps = (None if one is None else one.expand(count, *one.shape[1:]).to(device) for one in made)
        text_seconds = clock.lap()
        ids = self.draw(condition, shape, settings, on_step, of_gaps=of_gaps)
        draw_seconds = clock.lap()
        whole = self.tokenizer.config.norm == "group"
        pieces = [self.tokenizer.decode(ids)] if whole else self.tokenizer.decode_stream(ids)
        pixels = torch.cat([piece.cpu() for piece in pieces], dim=2)
        seconds = Seconds(text_seconds, draw_seconds, clock.lap())
        self.maybe_free_model_hooks()
        record = Record(
            settings=settings,
            model=str(self.config.get("_name_or_path") or ""),
            weights=self.weights(),
            scheduler={},
            fps=self.config.fps,
            dtype=str(self.transformer.dtype).removeprefix("torch."),
            device=str(device),
            threads=torch.get_num_threads(),
            seconds=seconds,
            peak_memory_bytes=peak_memory(device),
            versions=versions(),
            machine=machine(),
        )
        carried = None if sound is None else sound.sound
        return VideoOutput(Clip(pixels, self.config.fps, sound=carried), ids, record)

    def draw(
        self,
        condition: Tensor,
        shape: tuple[int, int, int],
        settings: Settings,
        on_step: Callable[[int, int], None] | None = None,
        *,
        of_gaps: Tensor | None = None,
    ) -> Tensor:
        """Ids int64 (B, t, h, w) of a condition (B, m), or of those of each window and gap, clip i from seed + i."""
        own, spacing, drawing = self.layout, self.config.spacing, Drawing.of(settings.drawing)
        frames, hierarchy = shape[0], self.config.spacing > 1
        drawn = spacing * (key_frames(frames, spacing) - 1) + 1 if hierarchy else frames
        tokens = drawn * shape[1] * shape[2]
        generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(len(condition))]
        noise = draw_noise(generators, tokens).to(condition.device)
        tally = Tally(tokens * len(condition), on_step)
        given = {"choice": drawing.choice, "tally": tally}
        if shape[1:] != (own.rows, own.columns):
            return slide_in_space(self.transformer, own, condition, noise, shape, **given)
        given |= {"first": drawing.first, "context": drawing.context}
        if not hierarchy:
            return slide(self.transformer, own, condition, noise, **given)
        given |= {"spacing": spacing, "of_gaps": of_gaps}
        made = hierarchical(self.transformer, self.interpolator, own, condition, noise, **given)
        return made[:, :frames]

    def weights(self) -> str:
        """SHA-256 over all networks, computed again only when a weight was written since."""
        networks = {name: network for name, network in self.components.items() if isinstance(network, torch.nn.Module)}
        stamp = tuple((id(p), p._version) for network in networks.values() for p in network.parameters())
        if self._weights is None or self._weights[0] != stamp:
            self._weights = stamp, weights_hash(networks)
        return self._weights[1]

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False) -> None:
        """Write `model_index.json`, with the hashes of the tokenizers that are saved. Called by `save_pretrained`."""
        heard = None if self.audio_tokenizer is None else self.audio_tokenizer.content_hash()
        self.register_to_config(tokenizer_hash=self.tokenizer.content_hash(), audio_tokenizer_hash=heard)
        super().save_config(save_directory, push_to_hub)


def _checked_hash(tokenizer: VQGAN3d, trained: str | None, name: str) -> str:
    """A tokenizer's hash, which is that of the one trained with, where that is known."""
    found = tokenizer.content_hash()
    if trained is not None and found != trained:
        raise UnknownModel(
            f"the {name} has hash {found[:12]} and the transformer was trained with {trained[:12]}: load the "
            f"{name} that belongs to it, or train the transformer on this one"
        )
    return found
