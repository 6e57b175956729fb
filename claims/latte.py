"""Latte's study at small scale: what attention over time, and each other switch, is worth on scenes.

Statement (arXiv 2401.03048, section 4.4): a video transformer needs attention over time; interleaved blocks (V1) do best.
Measured: class-conditional Lattes of about equal parameters, trained alike (noise with a learned variance, equal steps,
batches, data and seeds) on clips of one object, 40 classes, per-frame latents; each of the study's switches is changed
by itself. For each: squared error of the noise on 64 held-out clips, over all noise levels and in the middle ones
(t = 400, 500, 600), where a network that pools 16 noisy views of one scene has most to gain; and from one clip of each
class (DDIM, 50 steps, guidance 3): classes read back, FVD[scenes-3d] against 512 held-out renders of the same classes,
and the identity error, 1 - subject consistency (cosine of neighbouring frames' features, scenes-2d).
Baseline: V1 with its blocks over time replaced by blocks over space: the same parameters, steps and seeds.
Threshold: `holds` when in every seed V1's error at the middle levels is at least 5 % below the baseline's and its
identity error is lower; `does not hold` when in every seed one of the two is missed; else `inconclusive`. No order among
V1 to V4 and the other switches is part of the claim: they are reported with their spread.

    python claims/latte.py [--steps 400] [--seeds 0 1 2] [--only V1,V2] [--cache DIR] [--out FILE]

Finished trainings in the cache are taken as they are, so that an interrupted study goes on.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from support import write_result

from longtake.data.scenes import SceneDataset, SceneOptions
from longtake.diffusion.gaussian import GaussianDiffusion
from longtake.evaluation.measure import measure
from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.readback.of_classes import clips_of_classes, read_classes
from longtake.evaluation.sources import SceneSource, TensorSource
from longtake.pipelines import load
from longtake.training.launch import run
from longtake.training.recipe import Recipe, resolve
from longtake.video import to_uint8

ALONE = {"relations": ["alone"]}
OPTIONS = SceneOptions(relations=("alone",))
BASELINE = "no time"
NETWORK = {"latent_channels": 16, "width": 192, "depth": 6, "heads": 4, "patch": 2, "classes": 40}
STUDY: dict[str, dict[str, Any]] = {
    "V1": {},
    BASELINE: {"variant": "spatial"},
    "V2": {"variant": "2"},
    "V3": {"variant": "3", "depth": 5},
    "V4": {"variant": "4", "depth": 5},
    "V1 tubelets": {"tubelet": 2},
    "V1 all tokens": {"inject": "all_tokens", "depth": 8},
    "V1 rotary": {"temporal_pos": "rope"},
    "V1 joint images": {},
}
IMAGES = {"V1 joint images": 4}
MIDDLE = (400, 500, 600)
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "latte-study.png"


def recipe(name: str, seed: int, steps: int, cache: Path) -> Recipe:
    """One training of the study."""
    written = {
        "task": "generator",
        "name": f"{name}, seed {seed}",
        "out": str(cache / f"{name.replace(' ', '-')}-{steps}-{seed}"),
        "seed": seed,
        "steps": steps,
        "data": {
            "kind": "scenes", "count": 4000, "held_out": 64, "frames": 16, "batch_size": 16, "options": ALONE,
            "cache": str(cache),
        },
        "tokenizer": {"init_from": "starter", "per_frame": True},
        "objective": {"predicts": "noise", "sigmas": "uniform", "shift": 1.0, "images": IMAGES.get(name, 0)},
        "backbone": {"kind": "latte", "config": {**NETWORK, **STUDY[name]}},
        "optimizer": {"name": "muon", "lr": 1e-3, "muon_lr": 2e-3},
        "schedule": {"name": "cosine", "warmup": 50},
        "ema": {"decay": 0.995},
        "checkpoint": {"every": 200},
        "validation": {"every": steps},
        "samples": {"every": 0},
    }  # fmt: skip
    return resolve(written, {})[0]


def train_and_look(name: str, seed: int, steps: int, cache: Path, real: SceneSource) -> dict[str, float]:
    """Train one network, unless the cache holds it, and take all its numbers."""
    made = run(recipe(name, seed, steps, cache), resume=True)
    told = Path(made.out) / "numbers.json"
    if not told.exists():
        pipe = load(made.out / "export")
        told.write_text(json.dumps(look(pipe, seed, cache, real)))
    return json.loads(told.read_text())


def look(pipe: Any, seed: int, cache: Path, real: SceneSource) -> dict[str, float]:
    """Numbers of a trained pipeline."""
    errors = held_out_errors(pipe, seed)
    found = {"error": statistics.mean(errors.values()), "middle": statistics.mean(errors[t] for t in MIDDLE)}
    labels = range(NETWORK["classes"])
    clips = clips_of_classes(pipe, labels, OPTIONS, frames=16, steps=50, guidance=3.0, seed=100_000 * seed)
    found["read back"] = read_classes(clips, labels, OPTIONS)["class"]
    fake = TensorSource(to_uint8(clips).permute(0, 4, 1, 2, 3).contiguous())
    protocol = find_protocol("ours", {"frames": 16})
    values = measure(fake, real, ["fvd", "subject"], protocol, cache=cache, resamples=0).result.values
    found["FVD[scenes-3d]"] = next(value.value for value in values if value.name.startswith("FVD"))
    subject = next(value for value in values if value.name.startswith("subject"))
    found["identity error"] = 1 - subject.value
    found["parameters"] = sum(p.numel() for p in pipe.transformer.parameters())
    return found


@torch.no_grad()
def held_out_errors(pipe: Any, seed: int) -> dict[int, float]:
    """Mean squared error of the noise on 64 held-out clips: {timestep: error}."""
    data = SceneDataset(
        options=SceneOptions(relations=("alone",), split="held-out"), count=64, frames=16, plain=True, labels=True
    )
    items = [data[i] for i in range(64)]
    diffusion, errors = GaussianDiffusion(), {}
    latents = torch.cat([pipe.tokenizer.encode(item["pixels"][None]) for item in items])
    labels = torch.tensor([item["label"] for item in items])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    for t in (50, 200, *MIDDLE, 800, 950):
        total = 0.0
        for i in range(0, 64, 16):
            step = torch.full((16,), t)
            noisy = diffusion.add_noise(latents[i : i + 16], noise[i : i + 16], step)
            made = pipe.transformer(noisy, step, labels=labels[i : i + 16])[:, : latents.shape[1]]
            total += float((made - noise[i : i + 16]).square().mean()) / 4
        errors[t] = total
    return errors


def judge(found: dict[str, list[dict[str, float]]]) -> str:
    """The verdict, from V1 and the baseline of each seed."""
    both = list(zip(found["V1"], found[BASELINE], strict=True))
    less = [own["middle"] <= 0.95 * other["middle"] for own, other in both]
    steadier = [own["identity error"] < other["identity error"] for own, other in both]
    if all(less) and all(steadier):
        return "holds"
    return "does not hold" if not any(less) or not any(steadier) else "inconclusive"


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """A panel for each number, a dot for each seed."""
    numbers = ["middle", "error", "identity error", "read back", "FVD[scenes-3d]"]
    figure = Figure(figsize=(12, 0.32 * len(found) + 1.1), layout="constrained")
    for axes, number in zip(figure.subplots(1, len(numbers), sharey=True), numbers, strict=True):
        for row, values in enumerate(found.values()):
            seeds = [one[number] for one in values]
            axes.plot(seeds, [row] * len(seeds), "o", ms=3.5, alpha=0.6, color="#20639b")
            axes.plot(statistics.mean(seeds), row, "|", ms=12, color="black")
        axes.set_title(number, fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_yticks(range(len(found)), list(found))
    figure.axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, measure, print the table, draw, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default=",".join(STUDY), help="comma-separated names of the study")
    parser.add_argument("--cache", type=Path, default=Path("runs/latte-study"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latte.json")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    held_out = SceneOptions(relations=("alone",), split="held-out")
    real = SceneSource(SceneDataset(options=held_out, first_seed=950_000, count=512, frames=16, plain=True))
    found: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        for name in args.only.split(","):
            numbers = train_and_look(name, seed, args.steps, args.cache, real)
            found.setdefault(name, []).append(numbers)
            print(
                f"seed {seed}  {name:16}" + "".join(f"  {key} {value:.4g}" for key, value in numbers.items()),
                flush=True,
            )
    verdict = judge(found) if {"V1", BASELINE} <= set(found) else "inconclusive"
    print("verdict:", verdict)
    result = {
        "name": "latte",
        "statement": "Attention over time: V1 predicts noise better and keeps identity better than without it.",
        "verdict": verdict,
        "thresholds": {"middle": 0.95, "identity error": 1.0},
        "seeds": args.seeds,
        "steps": args.steps,
        "found": found,
    }
    write_result(args.out, result)
    draw(found, IMAGE if args.out.parent.name == "results" else args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
