"""From a request to files: one clip, several numbered ones, or again what a record tells."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from longtake.errors import BadInput, UnknownModel
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
    steps: int = 30,
    guidance: float = 4.0,
    seed: int = 0,
    image: str | Path | None = None,
    last_image: str | Path | None = None,
    continue_from: str | Path | None = None,
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
        prompt ... guidance, seed: as a call of `VideoPipeline`.
        model, dtype, device: as `load`.
        out: .mp4, .mov or .mkv in an existing folder; with `count` above 1 each name gets its number, clip-0.mp4.
        image, last_image, continue_from: files.
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
    asked = zip((frames, height, width), pipe.config.clip_size, strict=True)
    frames, height, width = (own if size is None else size for size, own in asked)
    for path in paths:
        check_output(path, frames=frames * count, height=height, width=width)
    settings = Settings(prompt, negative_prompt, frames, height, width, steps, guidance, seed)
    if scheduler is not None:
        pipe.scheduler = scheduler_named(scheduler, shift=shift_of(pipe.scheduler))
    given = {"image": image, "last_image": last_image, "continue_from": continue_from}
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
    if describe_scheduler(pipe.scheduler) != told.scheduler:
        pipe.scheduler = scheduler_described(told.scheduler)
    given = {name: getattr(settings, name) for name in ("image", "last_image", "continue_from")}
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
    pipe: VideoPipeline,
    runs: list[Settings],
    given: dict[str, str | Path | None],
    paths: list[Path],
    on_step: OnStep | None,
    notes: tuple[str, ...] = (),
    *,
    stack: Stack,
) -> Iterator[Files]:
    if stack.methods:
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
            **given,
        )
        told = output.record
        told = replace(told, command=command_line(told.settings, told.model, path), warnings=(*told.warnings, *notes))
        write_output(output.clip, told, path)
        yield Files(path, told)


def _numbered(out: Path, count: int) -> list[Path]:
    if count == 1:
        return [out]
    digits = len(str(count - 1))
    return [out.with_name(f"{out.stem}-{number:0{digits}d}{out.suffix}") for number in range(count)]
