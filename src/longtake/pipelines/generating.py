"""From a request to files: one clip, several numbered ones, or again what a record tells."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from longtake.diffusion.sampling import prediction_kind
from longtake.errors import BadInput, UnknownModel, Unsupported
from longtake.pipelines.foreign.pipeline import ForeignPipeline
from longtake.pipelines.loading import load
from longtake.pipelines.records import (
    Record,
    Settings,
    check_output,
    check_sources,
    command_line,
    read_record,
    versions,
    write_output,
)
from longtake.pipelines.schedulers import describe_scheduler, scheduler_described, scheduler_named, shift_of
from longtake.pipelines.video_pipeline import VideoPipeline
from longtake.runtime.method import Method
from longtake.runtime.stack import Stack, Terms

OnStep = Callable[[int, int, int], None]
"""Called as on_step(clip, done, steps) after each step of each clip."""


@dataclass(frozen=True)
class Files:
    """A clip that was written: its path and its record, which is in `record_path(path)`."""

    path: Path
    record: Record


def generate(
    prompt: str,
    *,
    model: str | Path = "starter",
    out: str | Path = "clip.mp4",
    negative_prompt: str = "",
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_2: float | None = None,
    seed: int = 0,
    image: str | Path | None = None,
    last_image: str | Path | None = None,
    continue_from: str | Path | None = None,
    audio: str | Path | None = None,
    count: int = 1,
    scheduler: str | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    methods: Sequence[Method] = (),
    allow_inert: bool = False,
    terms: Sequence[Terms] = (),
    on_step: OnStep | None = None,
) -> list[Files]:
    """Make `count` clips with seeds seed, seed + 1, ... and write each with its record.

    Args:
        prompt ... guidance, seed: as a call of `VideoPipeline`; None is what the model takes by itself.
        guidance_2: of the second network of Wan 2.2; as a call of `ForeignPipeline`.
        model, dtype, device: as `load`.
        out: .mp4, .mov or .mkv in an existing folder; with `count` above 1 each name gets its number, clip-0.mp4.
        image, last_image, continue_from: files; not for models of diffusers.
        audio: a sound file, for models that make clips to sounds; the written clip carries it.
        scheduler: as `schedulers.scheduler_named`, with the shift of the model's own; None is the model's own.
        methods: that change how the network is run; allow_inert: one that does nothing is a warning, not an error; terms:
            of the profile that they come from (`longtake.methods.as_stack` gives both).

    Each clip is a run of its own, so that its record alone makes it again.

    Raises:
        LongtakeError: before anything is sampled where that can be known, with nothing half-written.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
        raise BadInput(f"count is {count!r}: expected a whole number from 1 to 10000")
    paths = _numbered(Path(out), count)
    for path in paths:
        check_output(path, frames=(frames or 1) * count, height=height or 1, width=width or 1)
    stack = Stack(methods, allow_inert=allow_inert, terms=terms)  # what cannot be combined is refused before loading
    pipe = load(model, dtype=dtype, device=device)
    settings = replace(
        pipe.settings(
            prompt,
            negative_prompt=negative_prompt,
            frames=frames,
            height=height,
            width=width,
            steps=steps,
            guidance=guidance,
            seed=seed,
        ),
        guidance_2=guidance_2,
    )
    for path in paths:
        check_output(path, frames=settings.frames * count, height=settings.height, width=settings.width)
    given = {"image": image, "last_image": last_image, "continue_from": continue_from, "audio": audio}
    _check_taken(pipe, given, guidance_2)
    if scheduler is not None:
        if not _has_scheduler(pipe) or prediction_kind(pipe.scheduler) != "flow":
            raise BadInput(
                f"scheduler '{scheduler}' is for flow matching, and this model predicts otherwise: leave it out"
            )
        pipe.scheduler = scheduler_named(scheduler, shift=shift_of(pipe.scheduler))
    runs = [replace(settings, seed=seed + i) for i in range(count)]
    return list(_run(pipe, runs, given, paths, on_step, stack=stack))


def regenerate(
    record: str | Path,
    *,
    out: str | Path | None = None,
    methods: Sequence[Method] = (),
    on_step: OnStep | None = None,
) -> Files:
    """Make the clip of a record again; on the machine that made it, the same clip bit for bit.

    Args:
        record: the JSON beside a clip.
        out: where to; None is beside the record, `clip.json` -> `clip-again.mp4`.
        methods: those that the record names (`longtake.methods.as_methods(record.settings.methods)`).

    The number of threads is set to the record's for the time of the run, because sums are split among threads.

    Raises:
        BadRecipe: not a record. UnknownModel: the model has other weights now. BadInput: a given file has changed or is
        gone, or the device is not there.
    """
    told = read_record(record)
    path = Path(record).with_name(f"{Path(record).stem}-again.mp4") if out is None else Path(out)
    settings = told.settings
    if settings.count != 1:
        raise BadInput(f"record '{record}' is of a batch of {settings.count} clips made in Python: call the pipeline")
    if settings.methods != tuple(map(str, methods)):
        raise BadInput(
            f"record '{record}' was made with methods {', '.join(settings.methods) or '(none)'}: give the same"
        )
    check_output(path, frames=settings.frames, height=settings.height, width=settings.width)
    check_sources(settings)
    pipe = load(told.model, dtype=told.dtype, device=told.device)
    if pipe.weights() != told.weights:
        raise UnknownModel(
            f"'{told.model}' has weights {pipe.weights()[:12]} and record '{record}' was made with "
            f"{told.weights[:12]}: another model under the same name cannot make the same clip"
        )
    if _has_scheduler(pipe) and describe_scheduler(pipe.scheduler) != told.scheduler:
        pipe.scheduler = scheduler_described(told.scheduler)
    given = {name: getattr(settings, name) for name in ("image", "last_image", "continue_from", "audio")}
    files = {name: None if source is None else source.path for name, source in given.items()}
    then = told.versions
    changed = tuple(
        f"{name} is {now}, was {then.get(name)}" for name, now in versions().items() if then.get(name) != now
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(told.threads)
    try:
        stack = Stack(methods, allow_inert=True)
        return next(_run(pipe, [settings], files, [path], on_step, notes=changed, stack=stack))
    finally:
        torch.set_num_threads(threads)


def _run(
    pipe: Any,
    runs: list[Settings],
    given: dict[str, str | Path | None],
    paths: list[Path],
    on_step: OnStep | None,
    notes: tuple[str, ...] = (),
    *,
    stack: Stack,
) -> Iterator[Files]:
    if stack.methods:
        if not _has_scheduler(pipe):
            raise Unsupported(
                f"methods change how noise is removed, and this {type(pipe).__name__} writes tokens: leave --with out"
            )
        stack.attach(pipe)
    for number, (one, path) in enumerate(zip(runs, paths, strict=True)):
        output = pipe(
            one.prompt,
            negative_prompt=one.negative_prompt,
            frames=one.frames,
            height=one.height,
            width=one.width,
            steps=one.steps,
            guidance=one.guidance,
            seed=one.seed,
            on_step=None if on_step is None else lambda done, steps, number=number: on_step(number, done, steps),
            **_own_arguments(pipe, one, given),
        )
        told = output.record
        told = replace(told, command=command_line(told.settings, told.model, path), warnings=(*told.warnings, *notes))
        write_output(output.clip, told, path)
        yield Files(path, told)


def _has_scheduler(pipe: Any) -> bool:
    """Whether a pipeline removes noise step by step; the others write tokens."""
    return isinstance(pipe, VideoPipeline | ForeignPipeline)


def _own_arguments(pipe: Any, one: Settings, given: dict[str, str | Path | None]) -> dict[str, Any]:
    """What a pipeline of this kind is called with besides."""
    if isinstance(pipe, VideoPipeline):
        return {name: value for name, value in given.items() if name != "audio"}
    if isinstance(pipe, ForeignPipeline):
        return {"guidance_2": one.guidance_2}
    return {"drawing": one.drawing, "audio": given["audio"]}


def _check_taken(pipe: Any, given: dict[str, str | Path | None], guidance_2: float | None) -> None:
    """Raise BadInput for what is given, and this kind of pipeline does not take."""
    if not isinstance(pipe, ForeignPipeline) and guidance_2 is not None:
        raise BadInput("guidance_2 was given, and this model has one network; use guidance")
    kind = pipe.dialect.pipeline if isinstance(pipe, ForeignPipeline) else type(pipe).__name__
    if given["audio"] is not None and _has_scheduler(pipe):
        raise BadInput(f"audio was given, and this {kind} hears no sound: leave it out")
    for name in ("image", "last_image", "continue_from") if not isinstance(pipe, VideoPipeline) else ():
        if given[name] is not None:
            raise BadInput(f"{name} was given, and this {kind} makes clips from text alone: leave it out")


def _numbered(out: Path, count: int) -> list[Path]:
    if count == 1:
        return [out]
    digits = len(str(count - 1))
    return [out.with_name(f"{out.stem}-{number:0{digits}d}{out.suffix}") for number in range(count)]
