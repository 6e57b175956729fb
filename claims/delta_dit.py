"""Δ-DiT: which blocks are skipped when, and that a difference is added again instead of an output.

Statement (arXiv 2406.01125): with the rear blocks skipped early in sampling and the front ones late, a run is closer to the
dense one than with the order swapped; and adding again what a range of blocks added is much closer than giving out again
what it gave.
Measured: 20-step flow sampling of the starter, one held-out prompt and seed a clip, guidance 4, 1.5 times fewer
multiply-accumulates in all blocks (6 of 8 blocks are skipped on 9 of 20 steps): mean squared error of the final latents to
those of the dense run, over their variance. Δ-DiT with b = 10, half of the steps, fixed beforehand; the same with the order
swapped; and with the outputs of the same ranges given out again. On the first few clips (`--curve`) the first two for
b = 0, 5, 10, 15, 20, whose ends are the rear and the front range alone.
Baseline: the swapped order and the reuse of outputs, which cost the same.
Threshold: `holds` when in each of the three thirds of the clips Δ-DiT's error is below that of the swapped order and at
most a third of that of reused outputs; `does not hold` when one of the two is missed in every third; else `inconclusive`.
The paper's networks have 28 blocks, the starter has 8.

    python claims/delta_dit.py [--model starter] [--clips 33] [--curve 9] [--steps 20] [--out FILE]
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from matplotlib.figure import Figure
from support import write_result
from torch import Tensor

import longtake
from longtake.data.scenes import SceneOptions, sample_scene
from longtake.methods.caches.delta_dit import DeltaDiT
from longtake.runtime.method import Block, Here

FIRST_SEED = 530_000
SPEEDUP = 1.5
FACTOR = 3.0
OURS, SWAPPED, OUTPUTS = "delta-dit", "swapped", "outputs"
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "delta-dit.png"


@dataclass(frozen=True)
class OutputReuse(DeltaDiT):
    """The control: a skipped range gives out what it gave on the last full step."""

    name: ClassVar[str] = "output-reuse"

    def block(self, here: Here, h: Tensor, text: Tensor | None, nxt: Callable[..., Block]) -> Block:
        step, layer = here.plan, here.site.layer
        if step.skipped is not None and layer in step.span:
            return here.branch[step.skipped] if layer == step.span.last else (h, text)
        out = nxt(h, text)
        for side, span in step.keep.items() if step.skipped is None else ():
            if layer == span.last:
                here.branch[side] = out
        return out


def error(made: Tensor, dense: Tensor) -> float:
    """Mean squared error of latents over the variance of the dense ones."""
    return float((made - dense).square().mean() / dense.var())


def run(pipe: Any, prompt: str, seed: int, steps: int, method: DeltaDiT | None = None) -> tuple[Tensor, dict[str, Any]]:
    """Latents of a clip, and the receipt."""
    asked = {"steps": steps, "guidance": 4.0, "seed": seed}
    if method is None:
        return pipe(prompt, **asked).latents, {}
    with longtake.apply(pipe, method):
        output = pipe(prompt, **asked)
    return output.latents, output.record.receipts[0]


def measure(
    pipe: Any, clips: int, curve: int, steps: int
) -> tuple[dict[str, list[float]], dict[str, dict[int, list[float]]], dict[str, float]]:
    """Errors of all clips, those by boundary of the first few, and the share of multiply-accumulates."""
    half, boundaries = steps // 2, sorted({round(part * steps / 4) for part in range(5)})
    kinds = {
        OURS: DeltaDiT(speedup=SPEEDUP, boundary=half),
        SWAPPED: DeltaDiT(speedup=SPEEDUP, boundary=half, swapped=True),
        OUTPUTS: OutputReuse(speedup=SPEEDUP, boundary=half),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    curves: dict[str, dict[int, list[float]]] = {name: {b: [] for b in boundaries} for name in (OURS, SWAPPED)}
    cost: dict[str, float] = {}
    for number in range(clips):
        prompt = sample_scene(FIRST_SEED + number, SceneOptions(split="held-out")).caption
        dense, _ = run(pipe, prompt, number, steps)
        for name, method in kinds.items():
            made, receipt = run(pipe, prompt, number, steps, method)
            found[name].append(error(made, dense))
            cost[name] = receipt["macs_done"] / receipt["macs_dense"]
        for name in curves if number < curve else ():
            for b in boundaries:
                if b == half:
                    curves[name][b].append(found[name][-1])
                    continue
                method = DeltaDiT(speedup=SPEEDUP, boundary=b, swapped=name == SWAPPED)
                curves[name][b].append(error(run(pipe, prompt, number, steps, method)[0], dense))
        print(f"\r{number + 1}/{clips} clips", end="", flush=True)
    print()
    return found, curves, cost


def judge(found: dict[str, list[float]]) -> tuple[str, list[dict[str, float]]]:
    """The verdict, and the errors of each third of the clips."""
    thirds = [{name: statistics.mean(values[third::3]) for name, values in found.items()} for third in range(3)]
    order = [one[OURS] < one[SWAPPED] for one in thirds]
    kind = [FACTOR * one[OURS] <= one[OUTPUTS] for one in thirds]
    if all(order) and all(kind):
        return "holds", thirds
    return "does not hold" if not any(order) or not any(kind) else "inconclusive", thirds


def draw(found: dict[str, list[float]], curves: dict[str, dict[int, list[float]]], path: Path) -> None:
    """Error against the boundary, and the reuse of outputs as a line."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    labels = {OURS: "rear blocks before b, front ones after", SWAPPED: "the order swapped"}
    for (name, by_boundary), colour in zip(curves.items(), ("#20639b", "#ed553b"), strict=True):
        means = [statistics.mean(values) for values in by_boundary.values()]
        axes.semilogy(list(by_boundary), means, marker="o", ms=3.5, color=colour, label=labels[name])
    few = len(next(iter(curves[OURS].values())))
    axes.axhline(statistics.mean(found[OUTPUTS][:few]), color="#8d99ae", ls="--", label="outputs given out again")
    axes.set_xlabel("boundary b, in steps", fontsize=8)
    axes.set_ylabel("error of the latents", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sample, compare, print the table, draw, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--clips", type=int, default=33)
    parser.add_argument("--curve", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "delta_dit.json")
    args = parser.parse_args()
    pipe = longtake.load(args.model)
    found, curves, cost = measure(pipe, args.clips, args.curve, args.steps)
    verdict, thirds = judge(found)
    for name, values in found.items():
        print(f"{name:12}{statistics.mean(values):10.5f} +- {statistics.stdev(values):.5f}, cost {cost[name]:.3f}")
    for name, by_boundary in curves.items():
        print(name, "by boundary:", {b: round(statistics.mean(values), 5) for b, values in by_boundary.items()})
    print("verdict:", verdict)
    result = {
        "name": "delta_dit",
        "statement": "Rear blocks early and front ones late beats the reverse, and differences beat outputs.",
        "verdict": verdict,
        "thresholds": {"swapped / delta-dit": 1.0, "outputs / delta-dit": FACTOR},
        "thirds": thirds,
        "error": {name: statistics.mean(values) for name, values in found.items()},
        "spread": {name: statistics.stdev(values) for name, values in found.items()},
        "curves": {name: {b: statistics.mean(values) for b, values in one.items()} for name, one in curves.items()},
        "cost": cost,
        "clips": args.clips,
        "curve_clips": args.curve,
        "seeds": [0, args.clips - 1],
        "steps": args.steps,
        "weights": pipe.weights(),
    }
    write_result(args.out, result)
    draw(found, curves, IMAGE if args.out.parent.name == "results" else args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
