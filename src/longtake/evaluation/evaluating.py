"""From folders, or a model and prompts, to a record and a page: what the verb `evaluate` does."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longtake.errors import BadInput, BadOutput
from longtake.evaluation.generated import GeneratedSource, Sampling
from longtake.evaluation.measure import Measurement, measure
from longtake.evaluation.observing import joined_processes, read_clip
from longtake.evaluation.prompts import Prompt, read_prompts
from longtake.evaluation.protocol import Protocol, find_protocol, read_changes
from longtake.evaluation.report import Shown, write_page
from longtake.evaluation.results import Result, write_result
from longtake.evaluation.sources import ClipSource, open_source

RECORD, PAGE = "result.json", "result.html"


@dataclass(frozen=True)
class Evaluated:
    """A result, where it was written, and whether this is the process that wrote it."""

    result: Result
    record: Path
    page: Path
    first: bool = True


def evaluate(
    *,
    real: str | Path | None = None,
    fake: str | Path | None = None,
    model: str | Path | None = None,
    prompts: str | Path | None = None,
    metrics: str = "all",
    protocol: str | Path | Protocol = "ours",
    changes: Sequence[str] = (),
    network: str | None = None,
    frame_network: str | None = None,
    clip: str | Path | None = None,
    seams: Sequence[int] = (),
    out: str | Path = "evaluation",
    cache: str | Path | None = None,
    batch: int = 8,
    workers: int = 0,
    device: str = "cpu",
    sampling: Sampling | None = None,
    resamples: int = 200,
    shown: int = 8,
    command: Sequence[str] = (),
    on_clips: Callable[[str, int, int], None] | None = None,
) -> Evaluated:
    """Measure generated clips and write `result.json` and `result.html`.

    Args:
        real: what they are compared with: a folder, a table, or scenes rendered ahead. Not every metric needs it.
        fake: the generated clips, likewise; or model and prompts, which makes them (kept in ``out/clips``).
        prompts: a file; None takes the prompts of the real clips.
        metrics: names of `choosing.METRICS` with commas; "all": what can be measured with what is given.
        protocol: see `find_protocol`; changes: of it, each as "name=value".
        network, frame_network: in place of the protocol's.
        clip: folder of a CLIP, for the text score. seams: first frames of the pieces that a long clip was joined from.
        out: folder, made if missing. cache: of features; ``out/cache`` by default, may be shared.
        batch, workers, device: of the pass over the clips. sampling: how the model makes clips.
        resamples: of the bootstrap. shown: clips on the page. command: words of the command line, for the record.
        on_clips: called with (side, done, total).

    Processes that torchrun started share the work; the first one writes.

    Raises:
        LongtakeError: in one line, before anything is decoded where that can be known.
    """
    if (fake is None) == (model is None):
        raise BadInput("evaluate measures a folder of generated clips or a model: give --fake or --model.")
    if prompts is not None and model is None:
        raise BadInput("prompts go with a model: give --model, or leave --prompts out.")
    found = protocol if isinstance(protocol, Protocol) else find_protocol(protocol, read_changes(changes))
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"cannot make the folder {out}: {error.strerror}.") from None
    real_source = None if real is None else open_source(real, found.real.split)
    settings: dict[str, Any] = {}
    if fake is not None:
        fake_source: ClipSource = open_source(fake, found.fake.split)
    else:
        sampling = sampling or Sampling()
        fake_source = _generated(model, prompts, real_source, found, out / "clips", sampling, device)
        settings = {"model": str(model), "weights": fake_source.weights, **asdict(sampling)}
    with joined_processes() as rank:
        measured = measure(
            fake_source,
            real_source,
            None if metrics == "all" else metrics.split(","),
            found,
            network=network,
            frame_network=frame_network,
            clip=clip,
            seams=seams,
            cache=Path(cache) if cache is not None else out / "cache",
            batch=batch,
            workers=workers,
            device=device,
            resamples=resamples,
            settings=settings,
            command=shlex.join(["longtake", *command]) if command else "",
            on_clips=on_clips,
        )
        if rank == 0:
            write_result(measured.result, out / RECORD)
            write_page(measured.result, out / PAGE, _shown(measured, shown))
    return Evaluated(measured.result, out / RECORD, out / PAGE, rank == 0)


def _generated(
    model: str | Path | None,
    prompts: str | Path | None,
    real: ClipSource | None,
    protocol: Protocol,
    folder: Path,
    sampling: Sampling,
    device: str,
) -> GeneratedSource:
    from longtake.pipelines.loading import load

    if prompts is not None:
        asked = read_prompts(prompts)
    elif real is not None:
        asked = [Prompt(video.prompt, video.attributes) for video in real.videos if video.prompt]
    else:
        asked = []
    if not asked:
        raise BadInput(
            "a model makes clips from prompts: give --prompts FILE, or --real with prompts beside its clips."
        )
    if sampling.frames < protocol.fake.span:
        raise BadInput(
            f"the model makes clips of {sampling.frames} frames and protocol {protocol.name} takes "
            f"{protocol.fake.span}: set --frames, or fake.frames and fake.stride."
        )
    return GeneratedSource(load(model or "starter", device=device), asked[: protocol.fake.count], folder, sampling)


def _shown(measured: Measurement, count: int) -> list[Shown]:
    """The first clips by name, with their real partners where they have some."""
    fake, real = measured.fake, measured.real
    numbers = sorted(range(len(fake.clips)), key=fake.name)[:count]
    return [
        Shown(
            fake.source.videos[fake.clips[number].video].prompt or fake.name(number),
            read_clip(fake, number),
            read_clip(real, measured.places[number]) if real is not None and measured.places else None,
            min(fake.source.videos[fake.clips[number].video].fps / fake.side.stride, 50.0),
        )
        for number in numbers
    ]
