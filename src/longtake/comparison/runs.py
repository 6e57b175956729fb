"""Runs: each clip of each row is made once and kept without loss, under a name that holds all that decides it.

    clips/ROW/0003-HASH.mkv          pixels, lossless
    clips/ROW/0003-HASH.safetensors  latents
    clips/ROW/0003-HASH.json         record, written last: where it is, the clip is whole

The hash is over settings, methods, weights, scheduler, dtype, versions and the machine (for the times' sake), so that a
comparison that was interrupted goes on, and one that was changed runs what the change concerns.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from longtake.comparison.asking import Contender, Wanted
from longtake.errors import BadOutput, BadRecipe, LongtakeError
from longtake.pipelines.records import (
    Record,
    Settings,
    command_line,
    machine,
    read_record,
    record_path,
    versions,
    weights_of,
)
from longtake.pipelines.schedulers import describe_scheduler
from longtake.pipelines.video_pipeline import VideoOutput, VideoPipeline
from longtake.runtime.stack import Stack
from longtake.video import VideoReader, write_bytes, write_clip

OnStep = Callable[[int, int], None]
"""Called as on_step(done, steps) after each step of a run."""


class Pipeline(Protocol):
    """What is compared: a `VideoPipeline`, or anything that is called as one, checks what it is asked for by `settings`
    as `ForeignPipeline` does, and has a `transformer`, a `scheduler` and a `device`."""

    def __call__(
        self,
        prompt: str,
        *,
        frames: int | None,
        height: int | None,
        width: int | None,
        steps: int,
        guidance: float,
        seed: int,
        on_step: OnStep | None,
    ) -> VideoOutput:
        """Make one clip."""
        ...


@dataclass(frozen=True)
class Kept:
    """A clip that was made: where it is, and its record. `earlier`: it was there before this comparison began."""

    path: Path
    record: Record
    earlier: bool = False

    def pixels(self) -> Tensor:
        """Frames uint8 (T, H, W, 3)."""
        with VideoReader(self.path, threads=1) as reader:
            return reader.frames(range(reader.frame_count))

    def latents(self) -> Tensor:
        """Latents (1, C, T', H', W') on the CPU, as the tokenizer decoded them."""
        return load_file(self.path.with_suffix(".safetensors"))["latents"]


class Runs:
    """The runs of a comparison.

    Args:
        pipe: what is compared.
        settings: what all runs share, from `checked`; each has its own prompt, seed and methods.
        folder: for the clips.

    Attributes:
        weights: of the pipeline. memory_by_run: whether the peak memory of a run can be told from that of the runs before.
    """

    def __init__(self, pipe: Any, settings: Settings, folder: Path) -> None:
        self.pipe, self.settings, self.folder = pipe, settings, folder
        self.weights = weights_of(pipe)
        self.memory_by_run = forget_peak_memory(torch.device(pipe.device))
        self._common = {
            "weights": self.weights,
            "scheduler": describe_scheduler(pipe.scheduler),
            "dtype": str(pipe.transformer.dtype),
            "device": str(pipe.device),
            "versions": versions(),
            "machine": machine(),
        }

    def check(self, contender: Contender) -> None:
        """Raise Unsupported where a method cannot work on this network, or a profile is not of these runs."""
        if contender.methods:
            try:
                stack = Stack(contender.methods, terms=contender.terms)
                stack.admit(self.pipe, self.settings)
                stack.attach(self.pipe).detach()
            except LongtakeError as error:
                raise named(error, contender) from None

    def find(self, contender: Contender, wanted: Wanted) -> Kept | None:
        """A clip that is there already, whole."""
        path = self._path(contender, wanted)
        if not all(one.is_file() for one in (path, path.with_suffix(".safetensors"), record_path(path))):
            return None
        try:
            return Kept(path, read_record(record_path(path)), earlier=True)
        except BadRecipe:
            return None

    def make(self, contender: Contender, wanted: Wanted, on_step: OnStep | None = None) -> Kept:
        """Make a clip and keep it. Raises whatever the pipeline raises, and BadOutput."""
        output = self.run(contender, wanted, on_step)
        path = self._path(contender, wanted)
        _make_folder(path.parent)
        record = replace(
            output.record,
            command=command_line(output.record.settings, output.record.model, path.with_suffix(".mp4").name),
        )
        write_clip(output.clip, path, codec="ffv1")
        write_bytes(path.with_suffix(".safetensors"), save({"latents": output.latents.cpu().contiguous()}))
        write_bytes(record_path(path), record.to_json().encode())
        return Kept(path, record)

    def run(self, contender: Contender, wanted: Wanted, on_step: OnStep | None = None) -> VideoOutput:
        """Make a clip and keep nothing of it. A method that does nothing is no error here; its receipt says so."""
        s = self._settings(contender, wanted)
        stack = Stack(contender.methods, allow_inert=True)  # its terms were checked before
        forget_peak_memory(torch.device(self.pipe.device))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*did nothing")
            with stack.attach(self.pipe) if contender.methods else nullcontext():
                return self.pipe(
                    s.prompt,
                    frames=s.frames,
                    height=s.height,
                    width=s.width,
                    steps=s.steps,
                    guidance=s.guidance,
                    seed=s.seed,
                    on_step=on_step,
                )

    def _settings(self, contender: Contender, wanted: Wanted) -> Settings:
        methods = tuple(map(str, contender.methods))
        return replace(self.settings, prompt=wanted.prompt, seed=wanted.seed, methods=methods)

    def _path(self, contender: Contender, wanted: Wanted) -> Path:
        told = {**self._common, "settings": asdict(self._settings(contender, wanted))}
        key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        row = re.sub(r"[^\w.=,+-]+", "-", contender.name)[:80]
        return self.folder / row / f"{wanted.number:04d}-{key}.mkv"


def named(error: LongtakeError, contender: Contender) -> LongtakeError:
    """The error with the name of the stack that it is of, unless it is dense's."""
    return type(error)(f"stack '{contender.name}': {error}") if contender.methods else error


def idle_methods(record: Record) -> list[str]:
    """Names of the methods that did nothing in a run."""
    return [str(receipt["method"]) for receipt in record.receipts if not receipt["acted"]]


def checked(
    pipe: Any,
    prompt: str,
    *,
    frames: int | None,
    height: int | None,
    width: int | None,
    steps: int | None,
    guidance: float | None,
    seed: int,
) -> Settings:
    """What a run is asked for, with the pipeline's own values in place of None. Raises BadInput and BadSize."""
    settings = pipe.settings(
        prompt, frames=frames, height=height, width=width, steps=steps, guidance=guidance, seed=seed
    )
    if isinstance(pipe, VideoPipeline):
        pipe.check(settings)
    return settings


def forget_peak_memory(device: torch.device) -> bool:
    """Let the peak memory begin anew at what is held now; whether that can be done (on a GPU, and on Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"cannot make the folder {folder}: {error.strerror}.") from None
