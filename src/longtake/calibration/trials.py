"""Trials: what a setting costs and how close to dense it stays, on a set of clips.

Clips are made and kept as a comparison keeps them (`longtake.comparison.runs`), dense ones once for all settings. A time
is only worth something beside another of the same minutes: for a wall-clock ratio each clip is run dense and with the
method one after the other, every second pair the other way around, even where both clips are there already. The seconds
of a pair are kept beside the clip, so that a calibration that was interrupted goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from longtake.comparison.asking import DENSE, Contender, Wanted
from longtake.comparison.likeness import likeness
from longtake.comparison.report import Spread, summed_receipts
from longtake.comparison.runs import Kept, Runs, idle_methods
from longtake.methods.profiles import Numbers
from longtake.pipelines.records import Record
from longtake.video import write_bytes

OnStep = Callable[[int, int], None]
"""Called as on_step(done, all) steps of all runs; all is the most that there can still be."""


T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Numbers of a setting, and whether its method did anything in any of the clips."""

    numbers: Numbers
    acted: bool


class Trials:
    """Measures settings.

    Args:
        runs: that make and keep the clips.
        on_step: told of progress.

    Attributes:
        left: runs that there can still be, for the progress; whoever plans the trials sets it.
    """

    def __init__(self, runs: Runs, on_step: OnStep | None = None) -> None:
        self.runs, self._on_step = runs, on_step
        self.left = self._done = 0
        self._dense = Contender(DENSE)
        self._warm = False

    def measure(self, contender: Contender, clips: Sequence[Wanted], *, timed: bool = False) -> Measured:
        """Measure a setting on clips, against dense.

        Args:
            contender: the setting. clips: at least one.
            timed: also compare the wall clock, for which every clip is run beside its dense partner.

        Raises:
            LongtakeError: the setting is not one for this network or number of steps; or the disk is full.
        """
        self.runs.check(contender)
        pairs = [self._pair(contender, clip) for clip in clips] if timed else []
        kept = [(self._kept(contender, clip), self._kept(self._dense, clip)) for clip in clips]
        alike = [likeness(mine, dense) for mine, dense in kept]
        records = [mine.record for mine, _ in kept]
        (receipt,) = summed_receipts([record.receipts for record in records])
        speedup = Spread.of([dense / mine for dense, mine in pairs]) if pairs else None
        numbers = Numbers(
            clips=len(clips),
            psnr=fmean(one.psnr for one in alike),
            ssim=_mean([one.ssim for one in alike]),
            latent=_mean([one.latent_error for one in alike]),
            macs=receipt["macs_done"] / receipt["macs_dense"] if receipt["macs_dense"] else None,
            speedup=None if speedup is None else speedup.median,
            low=None if speedup is None else speedup.low,
            high=None if speedup is None else speedup.high,
        )
        return Measured(numbers, not all(idle_methods(record) for record in records))

    def _kept(self, contender: Contender, clip: Wanted) -> Kept:
        found = self.runs.find(contender, clip)
        return self._counted(lambda told: self.runs.make(contender, clip, told)) if found is None else found

    def _pair(self, contender: Contender, clip: Wanted) -> tuple[float, float]:
        """Seconds of a clip dense, and with the method, of one after the other."""
        found = self.runs.find(contender, clip)
        if found is not None and (earlier := _read_pair(found.path)) is not None:
            return earlier
        if not self._warm:
            self._counted(lambda told: self.runs.run(self._dense, clip, told))
        order = (self._dense, contender) if clip.number % 2 == 0 else (contender, self._dense)
        seconds = {one.name: _seconds(self._record(one, clip)) for one in order}
        pair = seconds[DENSE], seconds[contender.name]
        write_bytes(_pair_path(self._kept(contender, clip).path), json.dumps(pair).encode())
        return pair

    def _record(self, contender: Contender, clip: Wanted) -> Record:
        """Of a run that is made now, whether its clip is there or not."""
        if self.runs.find(contender, clip) is None:
            return self._kept(contender, clip).record
        return self._counted(lambda told: self.runs.run(contender, clip, told)).record

    def _counted(self, run: Callable[[OnStep], T]) -> T:
        steps = self.runs.settings.steps

        def told(step: int, of: int) -> None:
            if self._on_step is not None:
                self._on_step(self._done * steps + min(step, steps), (self._done + max(self.left, 1)) * steps)

        made = run(told)
        self._warm = True
        self._done, self.left = self._done + 1, max(self.left - 1, 0)
        return made


def _seconds(record: Record) -> float:
    return sum(asdict(record.seconds).values())


def _pair_path(clip: Path) -> Path:
    return clip.with_suffix(".pair.json")


def _read_pair(clip: Path) -> tuple[float, float] | None:
    try:
        dense, mine = json.loads(_pair_path(clip).read_text())
        return float(dense), float(mine)
    except (OSError, ValueError, TypeError):
        return None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return fmean(known) if known and len(known) == len(values) else None
