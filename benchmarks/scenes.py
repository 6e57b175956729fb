"""Clips per second of the scene renderer at 17x64x64: one scene at a time, in one call, and on all cores.

Then the share of a render's time in each of its steps (laying out the scene, rays, floor and sky, rays against bodies,
shadows, painting bodies, averaging rays to pixels) and the memory that a render adds, for one scene and for many.
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from longtake.data.scenes import Scene, render_scenes, rendering, sample_scene
from longtake.data.scenes.staging import Stage
from timing import arguments, compare, peak_memory, save

CLIPS = 24
STEPS = {
    "set_stage": "lay out",
    "floor_distance": "floor and sky",
    "paint_world": "floor and sky",
    "cast": "rays to bodies",
    "above_floor": "rays to bodies",
    "floor_shadows": "shadows",
    "body_shadows": "shadows",
    "paint_bodies": "paint bodies",
    "develop": "average rays",
}


def one_by_one(scenes: list[Scene]) -> torch.Tensor:
    """Render each scene in a call of its own."""
    return torch.cat([render_scenes([scene]) for scene in scenes])


def start_worker() -> None:
    """One thread for each process, as a DataLoader's workers have."""
    torch.set_num_threads(1)


def shares(scenes: list[Scene], rounds: int) -> dict[str, float]:
    """Median over rounds of the share of time in each step of `render_scenes`; the rest is `other`."""
    spent: dict[str, float] = defaultdict(float)
    inside: list[float] = []  # time of steps called by the step that runs now

    def timed(function: Callable[..., Any], step: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            result = function(*args, **more)
            elapsed = time.perf_counter() - start
            spent[step] += elapsed - inside.pop()
            if inside:
                inside[-1] += elapsed
            return result

        return call

    original = {name: getattr(rendering, name) for name in STEPS} | {"directions": Stage.directions}
    for name, step in STEPS.items():
        setattr(rendering, name, timed(original[name], step))
    Stage.directions = timed(original["directions"], "rays")  # type: ignore[method-assign]
    found = []
    try:
        for _ in range(rounds):
            spent.clear()
            start = time.perf_counter()
            one_by_one(scenes)
            whole = time.perf_counter() - start
            found.append({step: seconds / whole for step, seconds in spent.items()})
    finally:
        for name in STEPS:
            setattr(rendering, name, original[name])
        Stage.directions = original["directions"]  # type: ignore[method-assign]
    median = {step: statistics.median(one[step] for one in found) for step in found[0]}
    return median | {"other": 1.0 - sum(median.values(), 0.0)}


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    scenes = [sample_scene(seed) for seed in range(CLIPS)]
    assert torch.allclose(one_by_one(scenes[:4]), render_scenes(scenes[:4]), atol=1e-6)

    few, many = (peak_memory(partial(render_scenes, scenes[:n])) for n in (1, CLIPS))
    pixels = CLIPS * 3 * 17 * 64 * 64 * 4
    print(f"memory added: {few / 2**20:.0f} MiB for 1 scene, {many / 2**20:.0f} MiB for {CLIPS}", end=" ")
    print(f"(of it {pixels / 2**20:.0f} MiB the clips themselves)")

    with ProcessPoolExecutor(cores, get_context("spawn"), start_worker) as pool:
        parts = [scenes[i::cores] for i in range(cores)]
        candidates = {
            "one at a time": lambda: one_by_one(scenes),
            "one call": lambda: render_scenes(scenes),
            f"{cores} processes": lambda: list(pool.map(render_scenes, parts)),
        }
        result = compare(candidates, repeats=options.repeats)
    print(result)
    rate = {timing.name: CLIPS / timing.median for timing in result.timings}
    start = time.process_time()
    one_by_one(scenes)
    busy = (time.process_time() - start) / CLIPS  # does not count the time that other programs take
    print(", ".join(f"{name}: {value:.1f} clips/s" for name, value in rate.items()), end="; ")
    print(f"{busy * 1e3:.1f} ms of one core's time for a clip, {1 / busy:.0f} clips/s on a free core")

    steps = shares(scenes, options.repeats)
    print(", ".join(f"{step} {share:.0%}" for step, share in sorted(steps.items(), key=lambda pair: -pair[1])))
    setting = {"clips": CLIPS, "frames": 17, "height": 64, "width": 64, "supersample": 2, "options": "default"}
    save(
        "scenes",
        {
            "render": result,
            "clips_per_second": rate,
            "core_seconds_per_clip": busy,
            "share": steps,
            "bytes_one": few,
            "bytes_many": many,
        },
        setting=setting,
        folder=options.out,
    )


if __name__ == "__main__":
    main()
