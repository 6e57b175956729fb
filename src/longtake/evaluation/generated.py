"""Clips that a pipeline makes from prompts, as a source: each is made when it is first read, and kept without loss."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from longtake.errors import BadData, BadOutput, BadVideo
from longtake.evaluation.prompts import Prompt
from longtake.evaluation.sources import Video
from longtake.pipelines.records import Settings, versions
from longtake.pipelines.schedulers import describe_scheduler
from longtake.pipelines.video_pipeline import VideoPipeline
from longtake.video import VideoReader, write_clip


@dataclass(frozen=True)
class Sampling:
    """How clips are made: the arguments of a `VideoPipeline` call; clip i is drawn from seed + i."""

    frames: int = 17
    height: int = 64
    width: int = 64
    steps: int = 30
    guidance: float = 4.0
    negative_prompt: str = ""
    seed: int = 0


class GeneratedSource:
    """Clips of a pipeline.

    Clip i is of prompt i and is written to `folder` as lossless .mkv when it is first read, under a name that holds the
    hash of all that decides it. A run that was interrupted therefore goes on, several processes share the work, and a
    changed model or setting makes new clips.

    Args:
        pipe: a loaded pipeline. prompts: one clip each. folder: where the clips are kept; made if missing.
        sampling: size, steps, guidance, seed. name: what reports call the source; the model's name.
        on_clip: called with the number of clips made so far, after each.

    Raises:
        BadData: no prompts. BadSize, BadInput: the pipeline cannot make such clips. BadOutput: no such folder.
    """

    def __init__(
        self,
        pipe: VideoPipeline,
        prompts: Sequence[Prompt],
        folder: str | Path,
        sampling: Sampling | None = None,
        *,
        name: str | None = None,
        on_clip: Callable[[int], Any] | None = None,
    ) -> None:
        if not prompts:
            raise BadData("no prompts to make clips from: give at least one.")
        self.sampling = sampling = sampling or Sampling()
        self.name = name or str(pipe.config.get("_name_or_path") or "pipeline")
        self.problems: tuple[tuple[str, str], ...] = ()
        self.folder = Path(folder)
        self._pipe, self._prompts, self._on_clip, self._made = pipe, tuple(prompts), on_clip, 0
        for number in range(len(prompts)):
            pipe.check(self._settings(number))
        self.weights = pipe.weights()
        self._common = {
            "weights": self.weights,
            "scheduler": describe_scheduler(pipe.scheduler),
            "dtype": str(pipe.transformer.dtype),
            "torch": versions()["torch"],  # another version may draw other pixels
        }
        self.videos = tuple(
            Video(
                f"{number:06d}",
                sampling.frames,
                sampling.height,
                sampling.width,
                float(pipe.config.fps),
                prompt.text,
                prompt.attributes,
            )
            for number, prompt in enumerate(prompts)
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOutput(f"cannot make the folder {self.folder}: {error.strerror}.") from None

    def path(self, number: int) -> Path:
        """Where clip `number` is, or will be, kept."""
        return self.folder / f"{number:06d}-{self._hash(number)[:16]}.mkv"

    def read(self, number: int, frames: Sequence[int]) -> Tensor:
        """Return frames of a clip, which is made if it is not there yet: uint8 (T, H, W, 3)."""
        path = self.path(number)
        if not path.exists():
            settings = self._settings(number)
            output = self._pipe(
                settings.prompt,
                negative_prompt=settings.negative_prompt,
                frames=settings.frames,
                height=settings.height,
                width=settings.width,
                steps=settings.steps,
                guidance=settings.guidance,
                seed=settings.seed,
            )
            write_clip(output.clip, path, codec="ffv1")
            self._made += 1
            if self._on_clip is not None:
                self._on_clip(self._made)
        with VideoReader(path, threads=1) as reader:
            if reader.frame_count != self.sampling.frames:
                raise BadVideo(f"{path} has {reader.frame_count} frames, not {self.sampling.frames}: delete it.")
            return reader.frames(frames)

    def digest(self, number: int, frames: Sequence[int]) -> str:
        """Hash all that decides the clip: weights, scheduler, settings with prompt and seed; and the frames."""
        return f"{self._hash(number)}:{','.join(map(str, frames))}"

    def _hash(self, number: int) -> str:
        told = {**self._common, "settings": asdict(self._settings(number))}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    def _settings(self, number: int) -> Settings:
        s = self.sampling
        return Settings(
            self._prompts[number].text,
            s.negative_prompt,
            s.frames,
            s.height,
            s.width,
            s.steps,
            s.guidance,
            s.seed + number,
        )
