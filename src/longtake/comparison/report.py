"""The result of a comparison, as plain data: what report.json holds and what table and page show."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
PARTS = ("text", "denoise", "decode")
"""Of the time of a clip; "total" is their sum."""


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of one or more numbers; quartiles by linear interpolation, as NumPy has them."""
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(middle, low, high)


@dataclass(frozen=True)
class ClipResult:
    """One clip of a row: file below the report's folder, prompt, seed, seconds by part, likeness to dense, whether it was
    there before this comparison began."""

    file: str
    prompt: str
    seed: int
    seconds: dict[str, float]
    psnr: float | None = None
    ssim: float | None = None
    latent_error: float | None = None
    identical: bool = False
    earlier: bool = False


@dataclass(frozen=True)
class Row:
    """A line of the table. A row that could not be run to its end has an `error` and no numbers.

    Attributes:
        name: "dense", or its methods as they are written on the command line. methods: one by one.
        seconds: of a clip, by part and "total", over clips.
        speedup: dense seconds / own seconds of each pair of clips, over pairs. mac_speedup: dense multiply-accumulates /
            own, over all clips, by the receipts; None where they are not known.
        peak_memory_bytes: the most of any clip.
        psnr, ssim, latent_error: means over clips, against dense. identical: clips whose every byte is dense's.
        readback: share of attributes of the prompt that were read back from the clips, by attribute and of "all".
        fvd: Fréchet distance of scenes-3d features to renders of the same prompts.
        receipts: one for each method, summed over clips. notes: what else is to be said.
        clips: one by one.
    """

    name: str
    methods: tuple[str, ...] = ()
    seconds: dict[str, Spread] = field(default_factory=dict)
    speedup: Spread | None = None
    mac_speedup: float | None = None
    peak_memory_bytes: int | None = None
    psnr: float | None = None
    ssim: float | None = None
    latent_error: float | None = None
    identical: int = 0
    readback: dict[str, float] | None = None
    fvd: float | None = None
    receipts: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    clips: tuple[ClipResult, ...] = ()


@dataclass(frozen=True)
class Report:
    """A comparison.

    Attributes:
        model, weights, scheduler, dtype, device: what was run, and where.
        prompts: in order; prompt_source: where they come from. seeds: of each prompt; first_seed: clip k is drawn from
            first_seed + k.
        steps, guidance, frames, height, width, fps: of every clip.
        rows: dense first. references: numbers that belong beside the table's: read-back of the renders themselves and the
            detector's own accuracy.
        notes: what is missing and why, and what to mind.
    """

    model: str
    weights: str
    scheduler: dict[str, Any]
    dtype: str
    device: str
    prompts: tuple[str, ...]
    prompt_source: str
    seeds: int
    first_seed: int
    steps: int
    guidance: float
    frames: int
    height: int
    width: int
    fps: float
    rows: tuple[Row, ...]
    references: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    date: str = ""
    format: int = FORMAT

    @property
    def dense(self) -> Row:
        """The baseline."""
        return self.rows[0]

    @property
    def clips(self) -> int:
        """Clips of a row."""
        return len(self.prompts) * self.seeds

    def to_json(self) -> str:
        """Indented JSON with a final line break."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def summed_receipts(runs: Sequence[Sequence[dict[str, Any]]]) -> tuple[dict[str, Any], ...]:
    """Receipts of several runs of one stack as one for each method: counts and multiply-accumulates summed, state the most.

    Args:
        runs: `Record.receipts` of each. Settings, sites and notes are those of the first.
    """
    return tuple(_summed(same) for same in zip(*runs, strict=True))


def _summed(receipts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    branches: dict[str, dict[str, int]] = {}
    kernels: dict[str, int] = {}
    for one in receipts:
        for branch, counts in one["branches"].items():
            into = branches.setdefault(branch, {})
            for what, number in counts.items():
                into[what] = into.get(what, 0) + number
        for kernel, calls in one["kernels"].items():
            kernels[kernel] = kernels.get(kernel, 0) + calls
    known = all(one["macs_dense"] for one in receipts)
    return {
        **receipts[0],
        "branches": branches,
        "kernels": kernels,
        "observed": sum(one["observed"] for one in receipts),
        "macs_done": sum(one["macs_done"] for one in receipts) if known else None,
        "macs_dense": sum(one["macs_dense"] for one in receipts) if known else None,
        "state_bytes": max(one["state_bytes"] for one in receipts),
        "acted": any(one["acted"] for one in receipts),
        "runs": len(receipts),
        "idle_runs": sum(not one["acted"] for one in receipts),
    }
