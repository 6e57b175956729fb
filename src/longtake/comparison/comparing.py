"""The comparison itself: dense and every stack on the same prompts and seeds, in turns, and what comes of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from longtake.comparison.asking import (
    DENSE,
    Contender,
    Given,
    Prompts,
    Wanted,
    clips_wanted,
    find_contenders,
    find_prompts,
)
from longtake.comparison.likeness import Likeness, kept_batches, likeness, look, render_batches
from longtake.comparison.page import write_page
from longtake.comparison.report import PARTS, ClipResult, Report, Row, Spread, summed_receipts
from longtake.comparison.runs import Kept, Pipeline, Runs, checked, idle_methods, named
from longtake.comparison.table import count
from longtake.errors import BadOutput, InertMethod, LongtakeError
from longtake.evaluation.metrics.frechet import expected_floor, frechet_distance
from longtake.evaluation.metrics.reference import CEILING
from longtake.evaluation.networks import load_network
from longtake.evaluation.readback import Score
from longtake.evaluation.readback.fitting import shipped_detector
from longtake.pipelines.loading import load
from longtake.pipelines.records import machine, versions
from longtake.video import write_bytes
from longtake.video.writing import check_folder

FEWEST = 64
"""Clips, and renders, below which a Fréchet distance says nothing."""
SHOWN = 12
"""Prompts whose clips are on the page, unless another number is asked for."""


@dataclass
class _Made:
    """What came of one contender: its clips by number, and why it stopped."""

    contender: Contender
    kept: dict[int, Kept] = field(default_factory=dict)
    likeness: dict[int, Likeness] = field(default_factory=dict)
    error: str | None = None


def compare(
    model: str | Path | Pipeline = "starter",
    stacks: Sequence[Given] = (),
    *,
    prompts: int | str | Path | Sequence[str] = 4,
    out: str | Path = "report",
    seeds: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    allow_inert: bool = False,
    shown: int = SHOWN,
    command: str = "",
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Run a model dense and with each stack of methods on the same prompts and seeds; write report.json and index.html.

    All rows make clip 0, then all make clip 1, each round beginning with another row, so that a machine that slows down
    slows all of them. Before, each row that has clips to make runs the first of them once, uncounted, to warm up.

    Args:
        model: a name as `load` takes it, or a pipeline that is called as `VideoPipeline` is.
        stacks: each as on the command line, "taylorseer:interval=4+cfg-interval" or the file of a profile, or a method, a
            profile (`longtake.load_profile`), or a list of methods.
        prompts: a number, for captions of that many held-out scenes, a file, or the prompts.
        out: folder for the report, made in an existing one. Clips that an earlier comparison left in it, with the same
            settings, weights, versions and machine, are taken as they are.
        seeds: of each prompt; clip k is of prompt k modulo their number and is drawn from `seed` + k.
        steps, guidance, frames, height, width: as a call of the pipeline; None = its own.
        dtype, device: as `load`, for a model by name.
        allow_inert: a method that does nothing gets a note in its row, and is no error.
        shown: prompts whose clips are on the page, each with its first seed.
        command: that asked for this, for the record. on_step: called as on_step(done, all) steps of all runs.

    Raises:
        BadInput, BadData, BadOutput, UnknownName, UnknownModel, Conflict, Unsupported: before anything runs.
        InertMethod: a method did nothing while its row warmed up. What goes wrong later is told in the row.
    """
    asked = find_prompts(prompts)
    contenders = find_contenders(stacks)
    wanted = clips_wanted(asked, seeds, seed)
    folder = Path(out)
    _check_folder(folder)
    pipe: Any = load(model, dtype=dtype, device=device) if isinstance(model, str | Path) else model
    asks = [
        checked(
            pipe,
            one.prompt,
            frames=frames,
            height=height,
            width=width,
            steps=steps,
            guidance=guidance,
            seed=one.seed,
        )
        for one in wanted
    ]
    runs = Runs(pipe, asks[0], folder / "clips")
    for contender in contenders:
        runs.check(contender)
    folder.mkdir(exist_ok=True)
    made = _run(runs, contenders, wanted, asks[0].steps, allow_inert, on_step)
    for one in made[1:]:
        for number, kept in one.kept.items() if one.error is None else ():
            one.likeness[number] = likeness(kept, made[0].kept[number])
    rows, references, notes = _against_prompts([_row(one, made[0], wanted, runs, folder) for one in made], made, asked)
    told = made[0].kept[0].record
    report = Report(
        model=told.model or (str(model) if isinstance(model, str | Path) else type(model).__name__),
        weights=runs.weights,
        scheduler=told.scheduler,
        dtype=told.dtype,
        device=told.device,
        prompts=asked.texts,
        prompt_source=asked.source,
        seeds=seeds,
        first_seed=seed,
        steps=asks[0].steps,
        guidance=asks[0].guidance,
        frames=asks[0].frames,
        height=asks[0].height,
        width=asks[0].width,
        fps=told.fps,
        rows=tuple(rows),
        references=references,
        notes=tuple(notes + _notes(made, runs)),
        versions=versions(),
        machine=machine(),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_bytes(folder / "report.json", report.to_json().encode())
    write_page(report, folder, shown=shown)
    return report


# -------------------------------------------------------------------------------------------------------------- running


def _run(
    runs: Runs,
    contenders: Sequence[Contender],
    wanted: Sequence[Wanted],
    steps: int,
    allow_inert: bool,
    on_step: Callable[[int, int], None] | None,
) -> list[_Made]:
    """All clips of all contenders, in turns; those that are there already are taken."""
    made = [_Made(one) for one in contenders]
    for one in made:
        found = {clip.number: runs.find(one.contender, clip) for clip in wanted}
        one.kept = {number: kept for number, kept in found.items() if kept is not None}
    missing = {one.contender.name: [clip for clip in wanted if clip.number not in one.kept] for one in made}
    total = sum(len(clips) + 1 for clips in missing.values() if clips)
    done = 0

    def told(step: int, of: int) -> None:
        if on_step is not None:
            on_step(done * steps + min(step, steps), total * steps)

    for one in made:
        if missing[one.contender.name]:
            _warm_up(runs, one, missing[one.contender.name][0], allow_inert, told)
            done += 1
    for clip in wanted:
        first = clip.number % len(made)
        for one in made[first:] + made[:first]:
            if clip.number not in one.kept and one.error is None:
                with _told_in_the_row(one, (LongtakeError, RuntimeError)):
                    one.kept[clip.number] = runs.make(one.contender, clip, told)
                done += 1
    return made


def _warm_up(runs: Runs, made: _Made, clip: Wanted, allow_inert: bool, told: Callable[[int, int], None]) -> None:
    """Run a clip for nothing, so that the first that counts is none. Raises InertMethod and what `Runs.check` missed."""
    with _told_in_the_row(made, (RuntimeError,)):  # a network's own errors, such as a lack of memory
        try:
            idle = idle_methods(runs.run(made.contender, clip, told).record)
        except LongtakeError as error:
            raise named(error, made.contender) from None
        if idle and not allow_inert:
            raise InertMethod(
                f"stack '{made.contender.name}': {', '.join(idle)} did nothing in a whole clip; change its settings, "
                "leave it out, or allow methods that do nothing (--allow-inert)"
            )


@contextmanager
def _told_in_the_row(made: _Made, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Errors of these kinds end the row and not the comparison; those of dense, and of the disk, end both."""
    try:
        yield
    except kinds as error:
        if made.contender.name == DENSE or isinstance(error, BadOutput):
            raise
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        made.error = line if isinstance(error, LongtakeError) else f"{type(error).__name__}: {line}"


# --------------------------------------------------------------------------------------------------------------- numbers


def _row(made: _Made, dense: _Made, wanted: Sequence[Wanted], runs: Runs, folder: Path) -> Row:
    """All of a row that needs no look at the prompts."""
    contender = made.contender
    methods = tuple(map(str, contender.methods))
    clips = tuple(_clip(made, clip, folder) for clip in wanted if clip.number in made.kept)
    if made.error is not None:
        return Row(contender.name, methods, error=made.error, clips=clips)
    records = [made.kept[clip.number].record for clip in wanted]
    receipts = summed_receipts([record.receipts for record in records])
    times = [clip.seconds for clip in clips]
    base = [sum(asdict(dense.kept[clip.number].record.seconds).values()) for clip in wanted]
    alike = list(made.likeness.values())
    is_dense = contender.name == DENSE
    return Row(
        contender.name,
        methods,
        seconds={part: Spread.of([one[part] for one in times]) for part in (*PARTS, "total")},
        speedup=Spread.of([b / one["total"] for b, one in zip(base, times, strict=True)]),
        mac_speedup=1.0 if is_dense else _mac_speedup(receipts),
        peak_memory_bytes=max(one.peak_memory_bytes for one in records) if runs.memory_by_run else None,
        psnr=_mean([one.psnr for one in alike]),
        ssim=_mean([one.ssim for one in alike]),
        latent_error=_mean([one.latent_error for one in alike]),
        identical=sum(one.identical for one in alike),
        receipts=receipts,
        notes=_row_notes(receipts, alike),
        clips=clips,
    )


def _clip(made: _Made, clip: Wanted, folder: Path) -> ClipResult:
    kept = made.kept[clip.number]
    seconds = asdict(kept.record.seconds)
    found = made.likeness.get(clip.number)
    return ClipResult(
        file=kept.path.relative_to(folder).as_posix(),
        prompt=clip.prompt,
        seed=clip.seed,
        seconds={**seconds, "total": sum(seconds.values())},
        earlier=kept.earlier,
        **(asdict(found) if found is not None else {}),
    )


def _mac_speedup(receipts: Sequence[dict[str, Any]]) -> float | None:
    done, dense = receipts[0]["macs_done"], receipts[0]["macs_dense"]
    return dense / done if done and dense else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _row_notes(receipts: Sequence[dict[str, Any]], alike: Sequence[Likeness]) -> tuple[str, ...]:
    notes = [
        f"{one['method']} did nothing in {one['idle_runs']} of {one['runs']} clips"
        for one in receipts
        if one["idle_runs"]
    ]
    if receipts and _mac_speedup(receipts) is None:
        notes.append("multiply-accumulates are not known: no clip told what a whole call of the network costs")
    if same := sum(one.identical for one in alike):
        notes.append(f"{same} of {len(alike)} clips are dense's, byte for byte; each counts for {CEILING:g} dB")
    return tuple(notes)


def _notes(made: Sequence[_Made], runs: Runs) -> list[str]:
    """What is to be said of the whole."""
    notes = []
    earlier = sum(kept.earlier for one in made for kept in one.kept.values())
    if earlier:
        notes.append(f"{earlier} of {sum(len(one.kept) for one in made)} clips were there from an earlier comparison")
    if not runs.memory_by_run:
        notes.append("peak memory is left out: this system tells only the most since the process began")
    alike = [found for one in made for found in one.likeness.values()]
    if alike and all(found.ssim is None for found in alike):
        notes.append("SSIM is left out: a side of the clips is under 11 pixels")
    return notes


def _against_prompts(
    rows: list[Row], made: Sequence[_Made], prompts: Prompts
) -> tuple[list[Row], dict[str, Any], list[str]]:
    """Rows with read-back and Fréchet distance, where the prompts are captions of scenes; references and notes."""
    if not prompts.scenes:
        why = (
            "read-back and FVD[scenes-3d] are left out: nothing is known of what the prompts show; with a model of scenes, "
            "give --prompts a number for captions of held-out scenes"
        )
        return rows, {}, [why]
    first = made[0].kept[0].record
    clips = len(made[0].kept)
    counts = f"{count(clips, 'clip')} a row and {count(len(prompts.scenes), 'render')}"
    enough = min(clips, len(prompts.scenes)) >= FEWEST
    detector = shipped_detector()
    network = load_network("scenes-3d") if enough else None
    s = first.settings
    renders = look(render_batches(prompts.scenes, s.frames, s.height, s.width, first.fps), detector, network)
    looked = []
    for row, one in zip(rows, made, strict=True):
        if row.error is not None:
            looked.append(row)
            continue
        numbers = sorted(one.kept)
        scenes = [prompts.scenes[number % len(prompts.scenes)] for number in numbers]
        seen = look(kept_batches([one.kept[number] for number in numbers], scenes), detector, network)
        fvd = None
        if seen.moments is not None and renders.moments is not None:
            fvd = frechet_distance(seen.moments, renders.moments)
        looked.append(replace(row, readback=_shares(seen.score), fvd=fvd))
    references: dict[str, Any] = {
        "readback of renders": _shares(renders.score),
        "detector's own accuracy": dict(detector.config.own_accuracy or {}),
    }
    notes = []
    if renders.moments is None:
        notes.append(f"FVD[scenes-3d] is left out: {counts}, and it takes {FEWEST} of each to say anything")
    else:
        floor = expected_floor(renders.moments, len(prompts.scenes), clips)
        references["FVD[scenes-3d] floor"] = floor
        notes.append(
            f"FVD[scenes-3d] is of {counts}; two sets of renders of these sizes would be about {floor:.3g} apart"
        )
    return looked, references, notes


def _shares(score: Score) -> dict[str, float]:
    """Share of right readings by attribute, and of all together."""
    return {**score.accuracy, "all": sum(score.right.values()) / sum(score.total.values())}


# ---------------------------------------------------------------------------------------------------------------- folder


def _check_folder(out: Path) -> None:
    """Raise BadOutput when the report cannot be written to this folder, or the folder not made in an existing one."""
    if out.exists() and not out.is_dir():
        raise BadOutput(f"{out} cannot be the report's folder: it is a file.")
    check_folder(out / "report.json" if out.is_dir() else out)
