"""W2SD: reflection between a strong and a weak model brings samples nearer to the data, at equal evaluations.

Statement (arXiv 2502.00473, Theorem 1 and section 5): going a step down with the strong and back with the weak model moves
the sample along strong minus weak, and past strong towards the data where weak errs the same way and more. It does so at
high noise, and not in the last steps; too weak a model overshoots; the pair reversed hurts.
Measured, mixture: two modes at -4 and +4 of deviation 0.5 in one dimension with the exact velocity, 50 Euler steps, 20,000
samples. The left mode weighs 0.5 in the data, 0.3 in strong and 0.1 in weak. Share of samples on the left, by lambda, for
the first and the last steps, for too weak a model (0.02) and for a reversed pair (0.5).
Measured, checkpoints: a class-conditional Latte trained on scenes of one object with flow matching (40 classes, 16 frames);
weak is the average of its weights at a quarter of its training, strong that at the end. For each seed, clips of the
classes of held-out renders, guidance 3: FVD[scenes-3d] against these renders, and the share of clips whose shape and
motion are read back.
Baseline: strong alone at 48 evaluations for each prediction of guidance; W2SD has 24 steps and lambda 12, which are 48 as
well. Weak alone, at 48, is reported.
Thresholds: mixture `holds` when every share is within 0.03 of the one in EXPECTED, and the modes' width in 0.43 to 0.51.
Checkpoints `holds` when in every seed W2SD's FVD is below strong's, `does not hold` when in every seed it is not, else
`inconclusive`. The verdict is that of both: `holds` when both hold, `does not hold` when one does not, else `inconclusive`.

    python claims/w2sd.py [--part mixture|checkpoints|both] [--steps 1000] [--seeds 0 1 2] [--clips 256]
        [--strong FOLDER --weak FOLDER] [--cache DIR] [--out FILE]

Trainings, and clips that were measured, are kept in the cache, so that an interrupted run goes on. With --strong and
--weak nothing is trained: two pipelines of the same network are compared, with the seeds of the noise.
"""

import argparse
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from matplotlib.figure import Figure
from support import write_result
from torch import Tensor, nn

import longtake
from longtake.data.scenes import SceneDataset, SceneOptions, sample_scene
from longtake.data.scenes.classes import class_number
from longtake.diffusion.conditions import Conditions
from longtake.diffusion.sampling import sample
from longtake.evaluation.measure import measure
from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.readback.of_classes import clips_of_classes, read_classes
from longtake.evaluation.sources import SceneSource, TensorSource
from longtake.methods.sampling.w2sd import W2SD, equal_evaluations
from longtake.runtime import Family, ModelView, StepInfo, TokenGrid
from longtake.runtime.stack import Stack
from longtake.training.checkpoints import find_checkpoint
from longtake.training.launch import run
from longtake.training.recipe import Recipe, resolve
from longtake.video import to_uint8

# -------------------------------------------------------------------------------------------------------------- mixture

STRONG, WEAK = 0.3, 0.1
EXPECTED = {
    "strong": 0.300,
    "first 5": 0.36,
    "first 12": 0.47,
    "first 25": 0.52,
    "first 49": 0.52,
    "last 5": 0.29,
    "last 25": 0.29,
    "too weak": 0.57,
    "reversed": 0.14,
}
WITHIN, WIDTHS = 0.03, (0.43, 0.51)
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "w2sd.png"
FIELD = Family("mixture", (), lambda network, given: TokenGrid(1, 1, 1), latents="x")


class Mixture(nn.Module):
    """Exact velocity, noise - data given x, of two modes at -4 and 4 of deviation 0.5."""

    def __init__(self, left: float) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([left, 1 - left], dtype=torch.float64), requires_grad=False)

    def forward(self, x: Tensor, info: StepInfo) -> Tensor:
        """(B, 1, 1, 1, 1) at noise level info.sigma."""
        sigma = float(info.sigma or 0.0)
        centre = (1 - sigma) * x.new_tensor([-4.0, 4.0]).double()
        variance = (1 - sigma) ** 2 * 0.25 + sigma**2
        apart = x.double().reshape(-1, 1) - centre
        likely = (self.share.log() - apart.square() / (2 * variance)).softmax(1)
        noise = sigma / variance * apart
        data = x.new_tensor([-4.0, 4.0]).double() + (1 - sigma) * 0.25 / variance * apart
        return (likely * (noise - data)).sum(1).to(x.dtype).reshape(x.shape)


def mixture(count: int = 20_000, steps: int = 50) -> tuple[dict[str, dict[str, float]], dict[str, Tensor]]:
    """Share of samples on the left and deviation of a mode, by setting, and the samples themselves."""
    samples: dict[str, Tensor] = {}
    network, noise = Mixture(STRONG), torch.randn(count, 1, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    view = ModelView(network, FIELD)

    def drawn(name: str, lam: int, weak: float = WEAK, late: bool = False) -> dict[str, float]:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1])
        method = W2SD(pair="weights", network=Mixture(weak), lam=lam, late=late)
        with Stack([method], allow_inert=True).attach(network, [view]) as stack:
            made = sample(
                lambda x, info, given: network(x, info), scheduler, noise, Conditions(), steps=None, stack=stack
            ).flatten()
            evaluations = stack.finish(0)[0].notes["evaluations"]
        samples[name] = made
        left, right = made[made < 0], made[made >= 0]
        width = (float(left.std()) * len(left) + float(right.std()) * len(right)) / len(made)
        return {"left": len(left) / len(made), "width": width, "evaluations": evaluations}

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*did nothing")  # lambda 0
        found = {"strong": drawn("strong", 0)}
    found |= {f"first {lam}": drawn(f"first {lam}", lam) for lam in (5, 12, 25, 49)}
    found |= {f"last {lam}": drawn(f"last {lam}", lam, late=True) for lam in (5, 25)}
    found |= {"too weak": drawn("too weak", 25, 0.02), "reversed": drawn("reversed", 25, 0.5)}
    return found, samples


def draw(samples: dict[str, Tensor], path: Path) -> None:
    """Histograms of strong, and of 12 and 25 reflected steps."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    names = ("strong", "first 12", "first 25")
    for axes, name in zip(figure.subplots(1, 3, sharey=True), names, strict=True):
        axes.hist(samples[name].numpy(), bins=120, range=(-6.5, 6.5), color="#20639b")
        axes.set_title(f"{name}: {float((samples[name] < 0).float().mean()):.2f} on the left", fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def judge_mixture(found: dict[str, dict[str, float]]) -> str:
    """`holds` when all shares are as expected, else `does not hold`."""
    near = all(abs(found[name]["left"] - share) <= WITHIN for name, share in EXPECTED.items())
    narrow = all(WIDTHS[0] <= one["width"] <= WIDTHS[1] for one in found.values())
    return "holds" if near and narrow else "does not hold"


# ---------------------------------------------------------------------------------------------------------- checkpoints

OPTIONS = SceneOptions(relations=("alone",))
HELD_OUT = SceneOptions(relations=("alone",), split="held-out")
FIRST_SEED = 970_000
GUIDANCE = 3.0
PLAIN = 48
NETWORK = {
    "latent_channels": 16,
    "width": 192,
    "depth": 6,
    "heads": 4,
    "patch": 2,
    "classes": 40,
    "learned_variance": False,
}


def recipe(seed: int, steps: int, cache: Path, batch: int, scenes: int) -> Recipe:
    """The training of one seed, with a checkpoint at each quarter."""
    written = {
        "task": "generator",
        "name": f"w2sd, seed {seed}",
        "out": str(cache / f"latte-{steps}-{seed}"),
        "seed": seed,
        "steps": steps,
        "data": {
            "kind": "scenes", "count": scenes, "held_out": 16, "frames": 16, "batch_size": batch,
            "options": {"relations": ["alone"]}, "cache": str(cache),
        },
        "tokenizer": {"init_from": "starter", "per_frame": True},
        "objective": {"sigmas": "mode", "shift": 3.0, "prompt_dropout": 0.1},
        "backbone": {"kind": "latte", "config": NETWORK},
        "optimizer": {"name": "muon", "lr": 1e-3, "muon_lr": 2e-3},
        "schedule": {"name": "cosine", "warmup": min(50, steps // 4)},
        "ema": {"decay": 0.99},
        "checkpoint": {"every": max(steps // 4, 1), "keep": 5},
        "validation": {"every": 0},
        "samples": {"every": 0},
    }  # fmt: skip
    return resolve(written, {})[0]


def trained(seed: int, steps: int, cache: Path, batch: int, scenes: int) -> tuple[Path, Path]:
    """Folders of the strong and the weak pipeline of a seed; what the cache holds is not trained again."""
    asked = recipe(seed, steps, cache, batch, scenes)
    run(asked, resume=True)
    early = Path(asked.out).with_name(f"{Path(asked.out).name}-early")
    if not (early / "export").is_dir():
        name = f"step-{max(steps // 4, 1):08d}"
        shutil.copytree(Path(asked.out) / "checkpoints" / name, early / "checkpoints" / name, dirs_exist_ok=True)
        assert find_checkpoint(early / "checkpoints") is not None
        run(replace(asked, out=str(early)), export_only=True)
    return Path(asked.out) / "export", early / "export"


def clips_of(pipe: Any, labels: list[int], steps: int, seed: int) -> Tensor:
    """A clip of each label, (len(labels), 3, 16, 64, 64) in [-1, 1]."""
    first = 1_000_000 * seed
    return clips_of_classes(pipe, labels, OPTIONS, frames=16, steps=steps, guidance=GUIDANCE, seed=first)


def look(clips: Tensor, labels: list[int], cache: Path) -> dict[str, float]:
    """FVD against the renders that the labels are of, and the share of classes that are read back."""
    fake = TensorSource(to_uint8(clips).permute(0, 4, 1, 2, 3).contiguous())
    real = SceneSource(SceneDataset(options=HELD_OUT, first_seed=FIRST_SEED, count=len(labels), frames=16, plain=True))
    protocol = find_protocol("ours", {"frames": 16})
    values = measure(fake, real, ["fvd"], protocol, cache=cache, resamples=0).result.values
    return {
        "FVD[scenes-3d]": next(value.value for value in values if value.name.startswith("FVD")),
        "read back": read_classes(clips, labels, OPTIONS)["class"],
    }


def compare(folders: tuple[Path, Path], seed: int, clips: int, kept: Path, cache: Path) -> dict[str, Any]:
    """Strong and weak alone and W2SD, of one seed, unless the cache holds them."""
    if kept.exists():
        return json.loads(kept.read_text())
    labels = [class_number(sample_scene(FIRST_SEED + i, HELD_OUT), OPTIONS) for i in range(clips)]
    steps, lam = equal_evaluations(PLAIN)
    strong, weak = (longtake.load(folder) for folder in folders)
    found: dict[str, Any] = {
        "strong": look(clips_of(strong, labels, PLAIN, seed), labels, cache),
        "weak": look(clips_of(weak, labels, PLAIN, seed), labels, cache),
    }
    with longtake.apply(strong, W2SD(pair="weights", network=weak, lam=lam)) as stack:
        found["w2sd"] = look(clips_of(strong, labels, steps, seed), labels, cache)
        found["w2sd"]["evaluations"] = stack.receipts[0].notes["evaluations"]
    assert found["w2sd"]["evaluations"] == PLAIN
    kept.write_text(json.dumps(found))
    return found


def judge_checkpoints(found: list[dict[str, Any]]) -> str:
    """By the FVD of every seed."""
    below = [one["w2sd"]["FVD[scenes-3d]"] < one["strong"]["FVD[scenes-3d]"] for one in found]
    if len(found) < 3:
        return "inconclusive"
    return "holds" if all(below) else "does not hold" if not any(below) else "inconclusive"


# --------------------------------------------------------------------------------------------------------------- report


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("mixture", "checkpoints", "both"), default="both")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=4000, help="clips to train on")
    parser.add_argument("--strong", type=Path, help="folder of a trained class-conditional pipeline")
    parser.add_argument("--weak", type=Path, help="folder of the same network, trained less")
    parser.add_argument("--cache", type=Path, default=Path("runs/w2sd"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "w2sd.json")
    chosen = parser.parse_args()
    if (chosen.strong is None) != (chosen.weak is None):
        parser.error("--strong and --weak belong together")
    parts, measured = {"mixture": "not run", "checkpoints": "not run"}, {}
    if chosen.part != "checkpoints":
        measured["mixture"], samples = mixture()
        parts["mixture"] = judge_mixture(measured["mixture"])
        draw(samples, IMAGE if chosen.out.parent.name == "results" else chosen.out.with_suffix(".png"))
        print(f"{'mixture':12}{'left':>8}{'expected':>10}{'width':>8}{'evaluations':>13}")
        for name, one in measured["mixture"].items():
            print(f"{name:12}{one['left']:8.3f}{EXPECTED[name]:10.3f}{one['width']:8.3f}{one['evaluations']:13.0f}")
    if chosen.part != "mixture":
        chosen.cache.mkdir(parents=True, exist_ok=True)
        measured["checkpoints"] = []
        settings = chosen.steps, chosen.cache, chosen.batch, chosen.scenes
        for seed in chosen.seeds:
            given = chosen.strong is not None
            folders = (chosen.strong, chosen.weak) if given else trained(seed, *settings)
            kept = chosen.cache / f"{'given' if given else chosen.steps}-{seed}-{chosen.clips}.json"
            measured["checkpoints"].append(compare(folders, seed, chosen.clips, kept, chosen.cache))
            for name, one in measured["checkpoints"][-1].items():
                print(
                    f"seed {seed}  {name:8}" + "".join(f"  {key} {value:.4g}" for key, value in one.items()), flush=True
                )
        parts["checkpoints"] = judge_checkpoints(measured["checkpoints"])
    pair = {"strong": chosen.strong, "weak": chosen.weak}
    verdicts = set(parts.values())
    verdict = "holds" if verdicts == {"holds"} else "does not hold" if "does not hold" in verdicts else "inconclusive"
    print("verdict:", verdict, parts)
    result = {
        "name": "w2sd",
        "statement": "Reflection moves samples from strong past it towards the data, at equal evaluations.",
        "verdict": verdict,
        "parts": parts,
        "thresholds": {"mixture": WITHIN, "width": WIDTHS, "FVD w2sd / strong": 1.0},
        "expected": EXPECTED,
        "seeds": chosen.seeds if chosen.part != "mixture" else [0],
        "steps": None if chosen.strong else chosen.steps,
        "pair": {name: longtake.load(folder).weights() for name, folder in pair.items() if folder},
        "clips": chosen.clips,
        "found": measured,
    }
    write_result(chosen.out, result)


if __name__ == "__main__":
    main()
