"""The calibration itself: a search on some prompts, a check on others, and the profile that comes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longtake.calibration.asking import PromptsGiven, Subject, find_subject, split_prompts
from longtake.calibration.searching import Setting, Side, Space, search, space_of
from longtake.calibration.targets import Target, parse_targets, written
from longtake.calibration.trials import OnStep, Trials
from longtake.comparison.asking import Contender, Prompts, Wanted, clips_wanted
from longtake.comparison.likeness import SMALLEST
from longtake.comparison.runs import Pipeline, Runs, checked
from longtake.errors import BadInput, BadOutput, LongtakeError, MissedTarget
from longtake.methods.profiles import Numbers, Profile, Tried
from longtake.pipelines.loading import load
from longtake.pipelines.records import machine, versions
from longtake.pipelines.schedulers import describe_scheduler, scheduler_named, shift_of
from longtake.runtime.knobs import Value
from longtake.runtime.method import Method
from longtake.video import write_bytes
from longtake.video.writing import check_folder


def calibrate(
    model: str | Path | Pipeline = "starter",
    method: str | Method = "taylorseer",
    target: str | Sequence[str] = "psnr>=30",
    *,
    knobs: Mapping[str, Sequence[Value]] | Sequence[str] = (),
    prompts: PromptsGiven = 4,
    held_out: PromptsGiven | None = None,
    out: str | Path = "profile.json",
    cache: str | Path | None = None,
    seeds: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    scheduler: str | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    command: str = "",
    on_step: OnStep | None = None,
    on_tried: Callable[[Tried], None] | None = None,
) -> Profile:
    """Search a method's knobs for a target, check what was found on held-out prompts, and write a profile.

    With a target of likeness (psnr, ssim, latent) the setting that saves the most multiply-accumulates and meets it is
    looked for, or the boldest, with a method that saves none; targets of cost beside it must then be met by that one. With
    targets of cost alone (speedup, macs) it is the one of the highest PSNR that meets them. `calibration.searching` says
    which settings are tried. The profile is written whether the held-out clips meet the targets or not: ask `profile.met`.

    Args:
        model: a name as `load` takes it, or a pipeline that is called as `VideoPipeline` is.
        method: one method as on the command line; settings that are written there are held.
        target: "psnr>=30", "speedup>=2", "macs<=0.5,ssim>=0.9": see `calibration.targets.MEASURES`.
        knobs: values to search in place of those that the method declares, from careful to bold.
        prompts, held_out: see `calibration.asking.split_prompts`.
        out: .json file for the profile, in an existing folder.
        cache: folder for clips and times, from which an interrupted calibration goes on and another one of the same runs
            begins; None is beside the profile, `profile-cache`.
        seeds: of each prompt; calibration clip k is drawn from `seed` + k, and held-out clips go on from there.
        steps, guidance, frames, height, width: as a call of the pipeline; None = its own.
        scheduler: as `schedulers.scheduler_named`; dtype, device: as `load`; for a model by name.
        command: that asked for this, for the record. on_step: called as on_step(done, all) steps of all runs, where all is
            the most that there can be. on_tried: told of each setting of the search.

    Raises:
        BadInput, BadData, BadOutput, UnknownName, UnknownModel, Unsupported: before anything runs.
        MissedTarget: no setting meets the targets on the calibration clips; says how far it got. Nothing is written.
    """
    targets = parse_targets(target)
    subject = find_subject(method, knobs)
    halves = split_prompts(prompts, held_out)
    clips = clips_wanted(Prompts(halves.calibration, ""), seeds, seed)
    others = clips_wanted(Prompts(halves.held_out, ""), seeds, seed + len(clips))
    out = Path(out)
    folder = out.with_name(f"{out.stem}-cache") if cache is None else Path(cache)
    _check_output(out, folder)
    pipe: Any = model
    if isinstance(model, str | Path):
        pipe = load(model, dtype=dtype, device=device)
        if scheduler is not None:
            pipe.scheduler = scheduler_named(scheduler, shift=shift_of(pipe.scheduler))
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
        for one in (*clips, *others)
    ]
    first = asks[0]
    if any(one.name == "ssim" for one in targets) and min(first.height, first.width) < SMALLEST:
        raise BadInput(f"ssim needs clips of at least {SMALLEST} pixels a side; set another target, or a larger size")
    runs = Runs(pipe, first, folder)
    runs.check(_contender(subject.method))
    folder.mkdir(exist_ok=True)
    trials = Trials(runs, on_step)
    hunt = _Hunt(subject, targets, trials, clips, on_tried)
    found = hunt.run(2 * len(others))
    trials.left = 2 * len(others)
    checked_on = trials.measure(_contender(found.method), others, timed=True).numbers
    told = runs.find(_contender(found.method), others[0])
    profile = Profile(
        method=subject.written(found.setting),
        config=found.method.config(),
        chosen=dict(found.setting),
        model=(told.record.model if told else "")
        or (str(model) if isinstance(model, str | Path) else type(pipe).__name__),
        weights=runs.weights,
        dtype=str(pipe.transformer.dtype).removeprefix("torch."),
        scheduler=describe_scheduler(pipe.scheduler),
        steps=first.steps,
        guidance=float(first.guidance),
        frames=first.frames,
        height=first.height,
        width=first.width,
        targets=tuple(map(str, targets)),
        outcomes=tuple(one.outcome(checked_on) for one in targets),
        calibration=found.numbers,
        held_out=checked_on,
        tried=tuple(hunt.tried),
        prompts=halves.calibration,
        held_out_prompts=halves.held_out,
        seed=seed,
        device=str(pipe.device),
        machine=machine(),
        versions=versions(),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        path=str(out),
    )
    write_bytes(out, profile.to_json().encode())
    return profile


# ---------------------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True)
class _Found:
    """A setting that meets the targets, and its numbers on the calibration clips."""

    setting: Setting
    method: Method
    numbers: Numbers


@dataclass
class _Hunt:
    """The search for one method: which settings it has tried, and which of them fit."""

    subject: Subject
    targets: tuple[Target, ...]
    trials: Trials
    clips: tuple[Wanted, ...]
    on_tried: Callable[[Tried], None] | None
    tried: list[Tried] = field(default_factory=list)
    fits: list[_Found] = field(default_factory=list)

    def run(self, after: int) -> _Found:
        """Search. `after`: runs that follow, for the progress. Raises MissedTarget."""
        space = space_of(self.subject.knobs, self.subject.method.config())
        self.trials.left = len(self.clips) * (1 + space.most * (2 if self.timed and not self.quality else 1)) + after
        search(space, lambda setting: self._try(space, setting), bold=bool(self.quality))
        if not self.fits:
            raise MissedTarget(self._how_far(self.quality or self.cost))
        best = self._best(space)
        if self.quality and self.cost:
            best = self._costed(best)
        return best

    @property
    def quality(self) -> list[Target]:
        """Targets of likeness, which decide the search where there are any."""
        return [one for one in self.targets if one.measure.quality]

    @property
    def cost(self) -> list[Target]:
        """Targets of cost."""
        return [one for one in self.targets if not one.measure.quality]

    @property
    def timed(self) -> bool:
        """Whether the wall clock is asked for."""
        return any(one.name == "speedup" for one in self.targets)

    def _try(self, space: Space, setting: Setting) -> Side:
        """Measure a setting, note it, and say on which side of the boundary it lies."""
        text = self.subject.written(setting)
        try:
            method = self.subject.at(setting)
            timed = self.timed and not self.quality and self._may_be_best(space, setting, method)
            measured = self.trials.measure(_contender(method), self.clips, timed=timed)
        except BadOutput:
            raise
        except LongtakeError as error:
            self._note(Tried(text, error=str(error)))
            return Side.BOLD
        numbers = measured.numbers
        self._note(Tried(text, numbers))
        if any(one.missed(numbers) for one in self.quality or self.cost):
            return Side.BOLD if self.quality else Side.CAREFUL
        if not measured.acted:
            return Side.CAREFUL
        self.fits.append(_Found(setting, method, numbers))
        return Side.FITS

    def _may_be_best(self, space: Space, setting: Setting, method: Method) -> bool:
        """Whether a setting need be timed: not where it costs what the best so far costs and is not closer to dense."""
        best = self._best(space) if self.fits else None
        if best is None or any(best.setting[knob.name] != setting[knob.name] for knob in space.ordered):
            return True
        likeness = self.trials.measure(_contender(method), self.clips).numbers.psnr
        return (likeness or 0.0) > (best.numbers.psnr or 0.0)

    def _note(self, tried: Tried) -> None:
        self.tried.append(tried)
        if self.on_tried is not None:
            self.on_tried(tried)

    def _best(self, space: Space) -> _Found:
        """Of those that fit: the least work, then the closest to dense, or the boldest where none saves work; or, with
        targets of cost alone, the closest, then the least work."""

        def worth(found: _Found) -> tuple[float, float, float]:
            psnr, work = found.numbers.psnr or 0.0, round(1.0 if found.numbers.macs is None else found.numbers.macs, 9)
            bold = space.boldness(found.setting) if work >= 1 else 0.0
            return (-work, bold, psnr) if self.quality else (psnr, -work, 0.0)

        return max(self.fits, key=worth)

    def _costed(self, best: _Found) -> _Found:
        """The same with its time, where that is asked for. Raises MissedTarget where a target of cost is missed."""
        numbers = best.numbers
        if self.timed:
            numbers = self.trials.measure(_contender(best.method), self.clips, timed=True).numbers
        for one in self.cost:
            if one.missed(numbers):
                raise MissedTarget(
                    f"no setting of {best.method.name} meets {_all(self.targets)}: "
                    f"{self.subject.written(best.setting)}, the cheapest that meets "
                    f"{_all(self.quality)}, has {one.name} {written(one.name, one.value(numbers))}; ask for less, or try "
                    "another method"
                )
        return _Found(best.setting, best.method, numbers)

    def _how_far(self, targets: Sequence[Target]) -> str:
        """What to say where nothing fits."""
        asked = _all(targets)
        known = [(one, one.numbers) for one in self.tried if one.numbers is not None]
        if not known:
            return f"no setting of {self.subject.method.name} could be run: {self.tried[0].error}"
        closest, numbers = min(known, key=lambda one: sum(t.missed(one[1]) / t.bound for t in targets))
        reached = ", ".join(f"{one.name} {written(one.name, one.value(numbers))}" for one in targets)
        if not any(one.missed(numbers) for one in targets):
            return (
                f"{asked} is met by {closest.method} and other settings in which the method does nothing, and by none in "
                "which it acts; ask for less, or try another method"
            )
        return (
            f"no setting of {self.subject.method.name} reaches {asked} on {numbers.clips} calibration clips: "
            f"{closest.method} comes closest, with {reached}; ask for less, or try another method"
        )


def _contender(method: Method) -> Contender:
    return Contender(str(method), (method,))


def _all(targets: Sequence[Target]) -> str:
    return " and ".join(map(str, targets))


def _check_output(out: Path, folder: Path) -> None:
    """Raise BadOutput when the profile or the cache cannot be written."""
    if out.suffix.lower() != ".json":
        raise BadOutput(f"{out} cannot be written: a profile is a .json file, by which it is known where it is used")
    check_folder(out)
    if folder.exists() and not folder.is_dir():
        raise BadOutput(f"{folder} cannot be the cache's folder: it is a file")
    check_folder(folder / "clips" if folder.is_dir() else folder)
