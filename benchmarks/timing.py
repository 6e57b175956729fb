"""One way to time things: interleaved repeats, medians, and a ratio against a baseline of the same run.

A benchmark script names its candidates, the first of which is the baseline unless it says otherwise:

    from timing import compare, save

    result = compare({"diffusers": theirs, "longtake": ours}, repeats=9)
    print(result)
    save("backbone", {"forward": result}, setting={"shape": [1, 16, 5, 8, 8], "dtype": "float32"})

Seconds from two runs on two days are not comparable, and neither are seconds from the start and the end of one
run on a machine that somebody else uses too. So every round runs every candidate once, in an order that turns
around from round to round, and the ratio is the median over rounds of (candidate / baseline within the round).

Beside wall time the processor time of this process is taken, and its ratio in the same way: where other processes compete
for the cores, that is what is left of the truth. It says something of work on one thread, and nothing of a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from longtake.pipelines.records import machine, versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate, one entry a round, and its ratio against the baseline of the same rounds."""

    name: str
    seconds: tuple[float, ...]
    median: float
    ratio: float  # median over rounds of seconds / baseline seconds; 1.0 for the baseline itself
    ratio_low: float  # lower and upper quartile of the same per-round ratios
    ratio_high: float
    cpu_ratio: float  # as ratio, of this process' processor time
    cpu_ratio_low: float
    cpu_ratio_high: float


@dataclass(frozen=True)
class Comparison:
    """Timings of all candidates of one `compare`; prints as a table."""

    baseline: str
    rounds: int
    timings: tuple[Timing, ...]

    def __getitem__(self, name: str) -> Timing:
        for timing in self.timings:
            if timing.name == name:
                return timing
        raise KeyError(f"no candidate {name!r} in {[timing.name for timing in self.timings]}")

    def __str__(self) -> str:
        width = max(len("candidate"), *(len(timing.name) for timing in self.timings))
        head = f"{'median':>11}  {'ratio':>7}  {'cpu':>7}  quartiles of both ({self.rounds} rounds)"
        lines = [f"{'candidate':<{width}}  {head}"]
        for timing in self.timings:
            wall = f"{timing.ratio_low:.3f} .. {timing.ratio_high:.3f}"
            note = f"{wall}, cpu {timing.cpu_ratio_low:.3f} .. {timing.cpu_ratio_high:.3f}"
            note = "baseline" if timing.name == self.baseline else note
            numbers = f"{timing.median * 1e3:>8.2f} ms  {timing.ratio:>7.3f}  {timing.cpu_ratio:>7.3f}"
            lines.append(f"{timing.name:<{width}}  {numbers}  {note}")
        return "\n".join(lines)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 7,
    warmup: int = 1,
    baseline: str | None = None,
) -> Comparison:
    """Time the candidates against one another in interleaved rounds.

    Args:
        candidates: name -> function without arguments; its result is dropped. What it needs is made beforehand.
        repeats: number of timed rounds, at least 1 (an odd number makes the median a measured value).
        warmup: untimed rounds before the first timed one.
        baseline: name of the candidate that the ratios are against; default: the first one.

    Returns:
        Comparison with one Timing for each candidate, in the order given.

    Raises:
        ValueError: no candidates, no repeats, or a baseline that is not among the candidates.
    """
    if not candidates:
        raise ValueError("compare needs at least one candidate")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; at least one timed round is needed")
    names = list(candidates)
    baseline = names[0] if baseline is None else baseline
    if baseline not in candidates:
        raise ValueError(f"baseline {baseline!r} is not one of the candidates: {', '.join(names)}")

    seconds: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    for round_index in range(-warmup, repeats):
        order = names if round_index % 2 == 0 else names[::-1]
        for name in order:
            elapsed, used = time_once(candidates[name])
            if round_index >= 0:
                seconds[name].append(elapsed)
                processor[name].append(used)

    timings = []
    for name in names:
        low, middle, high = quartiles(_ratios(seconds[name], seconds[baseline]))
        of_cpu = quartiles(_ratios(processor[name], processor[baseline]))
        timing = Timing(
            name, tuple(seconds[name]), statistics.median(seconds[name]), middle, low, high,
            cpu_ratio=of_cpu[1], cpu_ratio_low=of_cpu[0], cpu_ratio_high=of_cpu[2],
        )  # fmt: skip
        timings.append(timing)
    return Comparison(baseline, repeats, tuple(timings))


def _ratios(own: list[float], base: list[float]) -> list[float]:
    return [one / other for one, other in zip(own, base, strict=True) if other > 0] or [float("nan")]


def time_once(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call, and this process' processor seconds in it.

    Garbage is collected before and not during it, and work queued on a GPU is waited for.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        synchronize()
        start, used = time.perf_counter(), time.process_time()
        function()
        synchronize()
        return time.perf_counter() - start, time.process_time() - used
    finally:
        if collecting:
            gc.enable()


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; a single value is all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def synchronize() -> None:
    """Wait for queued GPU work; nothing to do where no GPU has been used."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes by which one call raised the peak memory: of the GPU where one is in use, else of this process.

    The process' peak is read from Linux' VmHWM, reset before the call. Memory that the allocator already holds
    and hands out again does not show, so compare sizes in growing order, or each in a process of its own.

    Raises:
        OSError: no GPU in use, and not on Linux.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        synchronize()
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # 5 = reset the high-water mark
    before = process_memory("VmRSS")
    function()
    return max(0, process_memory("VmHWM") - before)


def process_memory(field: str) -> int:
    """Bytes of one line of /proc/self/status, e.g. VmRSS (resident now) or VmHWM (its peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no line {field}")


def save(
    name: str,
    results: Mapping[str, Comparison | int | float | str | dict | list],
    *,
    setting: Mapping[str, object] | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Write `<folder>/<name>.json`: the results, what was run (`setting`), the machine and the versions.

    Returns:
        The path written. The file is written under a temporary name and renamed.
    """
    record = {
        "name": name,
        "results": {key: asdict(value) if isinstance(value, Comparison) else value for key, value in results.items()},
        "setting": dict(setting or {}),
        "machine": machine() | {"load_1min": round(os.getloadavg()[0], 2)},
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.replace(path)
    return path


def commit() -> str | None:
    """Commit of the checkout, with `+` where tracked files differ from it; None outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.returncode else "")


def arguments(description: str | None, *, repeats: int = 7, only: Sequence[str] = ()) -> argparse.Namespace:
    """Command line that every benchmark shares: `--repeats N --threads N --out DIR`; sets torch's threads.

    With `only` also `--only TABLE ...`, one or several of those.
    """
    parser = argparse.ArgumentParser(
        description=(description or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=repeats, help="timed rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that torch uses")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result JSON")
    if only:
        parser.add_argument("--only", nargs="+", choices=only, default=[], help="tables to make; the others are kept")
    chosen = parser.parse_args(sys.argv[1:])
    torch.set_num_threads(chosen.threads)
    return chosen
