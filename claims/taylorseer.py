"""TaylorSeer: forecasting beats reuse on the starter.

Statement (arXiv 2503.06923, section 3 and figure 2): features change smoothly along sampling, so a first-order forecast of
what is not computed is much nearer to it than the last value, and a second-order one no further.
Measured: 50-step flow sampling of the starter, one held-out prompt and seed a clip, guidance 4: mean squared error of the
final latents to those of the dense run, over their variance; granularity "module", the published recursion. On all clips
at N = 4 with orders 0 to 2, and, at equal cost, order 1 at N = 5 (10 full steps and the last) against dense sampling of as
many steps. On the first few clips (`--curve`) a full step every N = 2 ... 10 with orders 0 to 3, and orders 2 and 3 in the
Newton form beside it.
Baseline: order 0, which is plain reuse at the same cost.
Threshold: `holds` when in each of the three thirds of the clips, at N = 4, order 1 has at most half the error of order 0
and order 2 at most the error of order 1; `does not hold` when one of the two is missed in every third; else
`inconclusive`. Where high orders get worse again, and the equal-cost comparison, are reported and not part of the verdict.

    python claims/taylorseer.py [--model starter] [--clips 24] [--curve 3] [--steps 50] [--out FILE]
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from support import write_result
from torch import Tensor

import longtake
from longtake.data.scenes import SceneOptions, sample_scene
from longtake.methods.caches.taylorseer import TaylorSeer

FIRST_SEED = 520_000
INTERVALS = (2, 3, 4, 5, 6, 8, 10)
ORDERS = (0, 1, 2, 3)
JUDGED = ORDERS[:3]
AT = 4
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "taylorseer.png"


def error(made: Tensor, dense: Tensor) -> float:
    """Mean squared error of latents over the variance of the dense ones."""
    return float((made - dense).square().mean() / dense.var())


def run(
    pipe: Any, prompt: str, seed: int, steps: int, method: TaylorSeer | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """Latents of a clip, and the receipt."""
    asked = {"steps": steps, "guidance": 4.0, "seed": seed}
    if method is None:
        return pipe(prompt, **asked).latents, {}
    with longtake.apply(pipe, method):
        output = pipe(prompt, **asked)
    return output.latents, output.record.receipts[0]


def measure(
    pipe: Any, clips: int, curve: int, steps: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """Errors by setting of all clips and of those of the curves, and the share of multiply-accumulates of each."""
    scenes = [sample_scene(FIRST_SEED + i, SceneOptions(split="held-out")) for i in range(clips)]
    every = {
        f"{basis} {order} {interval}": TaylorSeer(interval=interval, order=order, basis=basis)
        for interval in INTERVALS
        for basis, orders in (("taylor", ORDERS), ("newton", ORDERS[2:]))
        for order in orders
    }
    few = [f"taylor {order} {AT}" for order in JUDGED] + ["taylor 1 5"]
    full = len(TaylorSeer(interval=5).schedule.steps(steps))
    found: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    cost: dict[str, float] = {}
    for number, scene in enumerate(scenes):
        dense, _ = run(pipe, scene.caption, number, steps)
        for name in every if number < curve else few:
            made, receipt = run(pipe, scene.caption, number, steps, every[name])
            cost[name] = receipt["macs_done"] / receipt["macs_dense"]
            if number < curve:
                curves.setdefault(name, []).append(error(made, dense))
            if name in few:
                found.setdefault(name, []).append(error(made, dense))
        made, _ = run(pipe, scene.caption, number, full)
        found.setdefault(f"dense {full} steps", []).append(error(made, dense))
        print(f"\r{number + 1}/{clips} clips", end="", flush=True)
    print()
    return found, curves, cost


def judge(found: dict[str, list[float]]) -> tuple[str, list[dict[str, float]]]:
    """The verdict, and the errors at N = 4 of each third of the clips."""
    thirds = []
    for third in range(3):
        means = {order: statistics.mean(found[f"taylor {order} {AT}"][third::3]) for order in JUDGED}
        thirds.append({str(order): mean for order, mean in means.items()})
    half = [one["1"] <= 0.5 * one["0"] for one in thirds]
    more = [one["2"] <= one["1"] for one in thirds]
    if all(half) and all(more):
        return "holds", thirds
    return "does not hold" if not any(half) or not any(more) else "inconclusive", thirds


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """Error against interval, a line for each order."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    colours = ("#8d99ae", "#20639b", "#3caea3", "#ed553b")
    for order, colour in zip(ORDERS, colours, strict=True):
        for basis, line in (("taylor", "-"), ("newton", ":")):
            if f"{basis} {order} {AT}" in curves:
                means = [statistics.mean(curves[f"{basis} {order} {interval}"]) for interval in INTERVALS]
                axes.semilogy(INTERVALS, means, line, marker="o", ms=3.5, color=colour, label=f"{basis}, order {order}")
    axes.set_xlabel("a full step every N", fontsize=8)
    axes.set_ylabel("error of the latents", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, ncols=2)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sample, compare, print the table, draw, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--curve", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "taylorseer.json")
    args = parser.parse_args()
    pipe = longtake.load(args.model)
    found, curves, cost = measure(pipe, args.clips, args.curve, args.steps)
    verdict, thirds = judge(found)
    print(f"at N = {AT}, {args.clips} clips:", {name: round(statistics.mean(found[name]), 5) for name in found})
    print("error of the latents, a full step every N:\n" + f"{'':12}" + "".join(f"{n:>10}" for n in INTERVALS))
    for kind in ("taylor 0", "taylor 1", "taylor 2", "newton 2", "taylor 3", "newton 3"):
        print(f"{kind:12}" + "".join(f"{statistics.mean(curves[f'{kind} {n}']):10.5f}" for n in INTERVALS))
    print(f"{'cost':12}" + "".join(f"{cost[f'taylor 0 {n}']:10.3f}" for n in INTERVALS))
    dense = next(name for name in found if name.startswith("dense"))
    equal = {"order 1, N 5": statistics.mean(found["taylor 1 5"]), dense: statistics.mean(found[dense])}
    print("at equal cost:", ", ".join(f"{name} {value:.4f}" for name, value in equal.items()))
    print("verdict:", verdict)
    result = {
        "name": "taylorseer",
        "statement": "A first-order forecast has at most half the error of reuse, a second-order one no more than that.",
        "verdict": verdict,
        "thresholds": {"order 1 / order 0": 0.5, "order 2 / order 1": 1.0, "interval": AT},
        "thirds": thirds,
        "error": {name: statistics.mean(values) for name, values in found.items()},
        "curves": {name: statistics.mean(values) for name, values in curves.items()},
        "spread": {name: statistics.stdev(values) for name, values in found.items() if len(values) > 1},
        "cost": cost,
        "equal_cost": equal,
        "clips": args.clips,
        "curve_clips": args.curve,
        "seeds": [0, args.clips - 1],
        "steps": args.steps,
        "weights": pipe.weights(),
    }
    write_result(args.out, result)
    draw(curves, IMAGE if args.out.parent.name == "results" else args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
