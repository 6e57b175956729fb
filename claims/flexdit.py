"""FlexDiT at small scale: fewer tokens in the middle and at noise, for hardly more loss.

Statement (arXiv 2412.06028): a trained DiT whose token density changes along depth and along denoising time, fine-tuned
for some per cent of its training, costs much less and loses little.
Measured: `starter-latte` (8 blocks, tokens 16x4x4) converted and fine-tuned for 1,040 x 24 clips (a tenth of what the
starter was trained on; a first run, of 440 steps, had 4 %), three seeds: squared error of the velocity on 64 held-out
clips at 16 noise levels; multiply-accumulates over the 30 sampling steps; and from one seed 256 clips: classes read back,
FVD[scenes-3d], seconds a clip beside the dense network's.
Networks: `flexdit` 1+2x[1,1,1,0]+1 with the grids 16x3x3, 16x2x2, 8x2x2, 4x2x2 from clean to noisy.
Baselines, all trained alike: `dense`, the unconverted network; `one module`, 1+[1,4,1,0]+1 with the same grids; `fixed`,
the layout of flexdit on one grid, that whose cost is nearest to flexdit's mean; `merged`, every block of the dense
network on pairs of neighbouring tokens, 2 to 1, its update spread to both.
Thresholds: flexdit saves at least 30 % of the multiply-accumulates; in every seed its error is at most 5 % above dense
and below those of the three others. `holds` when all are met, `does not hold` when the saving is missed or one of the
comparisons is missed in every seed, else `inconclusive`.

    python claims/flexdit.py [--model starter-latte] [--steps 1040] [--seeds 0 1 2] [--clips 256] [--device cpu]
                             [--cache DIR] [--out FILE]

Trainings run on a GPU where there is one. Trainings and measurements in the cache are taken as they are, so that an
interrupted run goes on.
"""

import argparse
import re
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from support import kept, machines, write_result
from torch import Tensor, nn

import longtake
from longtake.backbones.converted import Converted, base_config
from longtake.backbones.latte import Latte
from longtake.backbones.latte_blocks import LatteBlock, LatteCondition
from longtake.data.scenes import SceneDataset, SceneOptions, sample_scene
from longtake.data.scenes.classes import class_number
from longtake.evaluation.denoising import velocity_errors
from longtake.evaluation.measure import measure
from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.readback.of_classes import clips_of_classes, read_classes
from longtake.evaluation.sources import SceneSource, TensorSource
from longtake.methods.dynamic.flexdit import Density, mac_report, to_flexdit
from longtake.methods.dynamic.flexdit.latte import on_grid
from longtake.methods.dynamic.flexdit.pieces import pool, spread
from longtake.pipelines.schedulers import noise_levels
from longtake.runtime import TokenGrid
from longtake.training.launch import run
from longtake.training.recipe import Recipe, resolve
from longtake.training.tasks.generator import GeneratorTask
from longtake.video import to_uint8

OPTIONS = SceneOptions(relations=("alone",))
HELD_OUT = SceneOptions(relations=("alone",), split="held-out")
FIRST_SEED = 960_000
LAYOUT, LONG = "1+2x[1,1,1,0]+1", "1+[1,4,1,0]+1"
GRIDS = ((16, 3, 3), (16, 2, 2), (8, 2, 2), (4, 2, 2))
NETWORKS = ("dense", "flexdit", "one module", "fixed", "merged")
SHIFT, SAMPLING = 2.0, 30
LEVELS = [(i + 0.5) / 16 for i in range(16)]
LATENTS = (16, 16, 8, 8)


class MergedBlock(nn.Module):
    """A block that works on pairs of neighbours in a row."""

    def __init__(self, block: LatteBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor, cond: LatteCondition) -> Tensor:
        """(B, F, N, D) -> the same."""
        grid = TokenGrid(cond.grid.frames, cond.grid.height, cond.grid.width // 2)
        few = pool(h, cond.grid, grid)
        return h + spread(self.block(few, on_grid(cond, grid)) - few, cond.grid, grid)


class MergedLatte(Converted, Latte):
    """The baseline `merged`."""

    @register_to_config
    def __init__(self, base: dict[str, Any]) -> None:
        Latte.__init__(self, **base)
        self.keep({"base": base})
        self.blocks = nn.ModuleList(MergedBlock(block) for block in self.blocks)  # type: ignore[arg-type]


def merged(network: Latte) -> MergedLatte:
    """The baseline from a trained network."""
    made = MergedLatte(base=base_config(network))
    made.load_state_dict({re.sub(r"^(blocks\.\d+)", r"\1.block", name): x for name, x in network.state_dict().items()})
    return made


def nearest_grid(network: Latte, cost: float, levels: list[float]) -> TokenGrid:
    """The grid on which the layout, kept at it, costs most nearly as much."""
    choices = [
        TokenGrid(*grid) for grid in product((4, 8, 16), (1, 2, 3, 4), (1, 2, 3, 4)) if abs(grid[1] - grid[2]) < 2
    ]
    costs = {
        grid: mac_report(to_flexdit(network, LAYOUT, Density(grids=(grid,))), LATENTS, levels[:1])[0]
        for grid in choices
    }
    return min(costs, key=lambda grid: abs(costs[grid] - cost))


def recipe(name: str, seed: int, fixed: TokenGrid, chosen: argparse.Namespace) -> Recipe:
    """One fine-tuning."""
    conversions: dict[str, dict[str, Any]] = {
        "flexdit": {"layout": LAYOUT, "grids": [list(grid) for grid in GRIDS]},
        "one module": {"layout": LONG, "grids": [list(grid) for grid in GRIDS]},
        "fixed": {"layout": LAYOUT, "grids": [list(fixed)]},
    }
    written = {
        "task": "generator",
        "name": f"{name}, seed {seed}",
        "out": str(folder(name, seed, chosen)),
        "seed": seed,
        "steps": chosen.steps,
        "data": {
            "kind": "scenes", "count": 4000, "held_out": 64, "frames": 16, "batch_size": 24, "cache": str(chosen.cache),
            "options": {"relations": ["alone"]},
        },
        "tokenizer": {"init_from": "starter", "per_frame": True},
        "objective": {"sigmas": "mode", "shift": SHIFT},
        "backbone": {"kind": "latte", "init_from": chosen.model, "flexdit": conversions.get(name, {})},
        "optimizer": {"name": "muon", "lr": 5e-4, "muon_lr": 1e-3},
        "schedule": {"name": "cosine", "warmup": 20},
        "ema": {"decay": 0.99},
        "checkpoint": {"every": 120},
        "validation": {"every": chosen.steps},
        "samples": {"every": 0},
    }  # fmt: skip
    return resolve(written, {})[0]


class MergedTask(GeneratorTask):
    """Trains the baseline `merged`."""

    def __init__(self, recipe: Recipe, world: Any) -> None:
        super().__init__(recipe, world)
        self.backbone = merged(self.backbone).to(world.device)
        self.modules["backbone"] = self.backbone


def folder(name: str, seed: int, chosen: argparse.Namespace) -> Path:
    """Where a fine-tuning is kept."""
    return chosen.cache / f"{name.replace(' ', '-')}-{chosen.steps}-{seed}"


def measured(name: str, seed: int, fixed: TokenGrid, tokenizer: Any, chosen: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune a network; its error at each noise level, and its mean cost over the sampling steps."""
    own = recipe(name, seed, fixed, chosen)
    run(own, resume=True, task=MergedTask) if name == "merged" else run(own, resume=True)
    export = folder(name, seed, chosen) / "export"
    network = (
        MergedLatte.from_pretrained(export / "transformer") if name == "merged" else longtake.load(export).transformer
    )
    network = network.eval()
    macs = statistics.mean(mac_report(network, LATENTS, noise_levels(SAMPLING, SHIFT)))
    latents, labels = held_out(tokenizer)
    return {"error": velocity_errors(network.to(chosen.device), latents, LEVELS, labels), "macs": macs}


def held_out(tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Latents and classes of 64 held-out clips."""
    data = SceneDataset(options=HELD_OUT, first_seed=FIRST_SEED + 50_000, count=64, frames=16, plain=True, labels=True)
    items = [data[i] for i in range(64)]
    latents = torch.cat([tokenizer.encode(item["pixels"][None]) for item in items])
    return latents, torch.tensor([item["label"] for item in items])


def main() -> None:
    """Train, measure, print, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="starter-latte")
    parser.add_argument("--steps", type=int, default=1040)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--device", default="cpu", help="where errors are measured")
    parser.add_argument("--cache", type=Path, default=Path("runs/flexdit-claim"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "flexdit.json")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)

    pipe = longtake.load(chosen.model)
    levels = noise_levels(SAMPLING, SHIFT)
    dense = mac_report(pipe.transformer, LATENTS, levels)
    flex = mac_report(to_flexdit(pipe.transformer, LAYOUT, Density(grids=GRIDS)), LATENTS, levels)
    fixed = nearest_grid(pipe.transformer, statistics.mean(flex), levels)

    found: dict[str, dict[str, Any]] = {name: {"errors": []} for name in NETWORKS}
    files = []
    for seed, name in product(chosen.seeds, NETWORKS):
        files.append(folder(name, seed, chosen) / "measured.json")
        one = kept(files[-1], lambda name=name, seed=seed: measured(name, seed, fixed, pipe.tokenizer, chosen))
        found[name]["errors"].append(one["error"])
        found[name]["macs"] = one["macs"]
        print(f"seed {seed}  {name:12} error {statistics.mean(one['error']):.5f}  MACs {one['macs'] / 1e6:.1f} M")
    for name in ("dense", "flexdit"):
        found[name] |= generated(folder(name, chosen.seeds[0], chosen) / "export", chosen)
        print(name, {key: value for key, value in found[name].items() if key != "errors"})

    saving = 1 - found["flexdit"]["macs"] / found["dense"]["macs"]
    mean = {name: [statistics.mean(each) for each in one["errors"]] for name, one in found.items()}
    own = mean["flexdit"]
    passed = {
        "within 5 % of dense": [mine <= 1.05 * other for mine, other in zip(own, mean["dense"], strict=True)],
        **{
            f"below {name}": [mine < other for mine, other in zip(own, mean[name], strict=True)]
            for name in ("one module", "fixed", "merged")
        },
    }
    if saving < 0.3 or not all(any(each) for each in passed.values()):
        verdict = "does not hold"
    else:
        verdict = "holds" if all(all(each) for each in passed.values()) else "inconclusive"
    print(f"saving {saving:.3f}", passed, "verdict:", verdict)
    write_result(
        chosen.out,
        {
            "name": "flexdit",
            "statement": "Fine-tuned for some per cent of its steps, a converted Latte costs less and loses little.",
            "verdict": verdict,
            "thresholds": {
                "saving": 0.3, "error over dense": 1.05, "error": "below one module, fixed and merged"
            },
            "seeds": chosen.seeds,
            "steps": chosen.steps,
            "saving": saving,
            "macs_by_step": {"dense": dense, "flexdit": flex},
            "fixed_grid": list(fixed),
            "passed": passed,
            "levels": LEVELS,
            "found": found,
            "trained_on": machines(files),
        },
    )  # fmt: skip


def generated(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Numbers of clips that a pipeline makes, of the classes of as many held-out renders."""
    pipe = longtake.load(folder)
    labels = [class_number(sample_scene(FIRST_SEED + i, HELD_OUT), OPTIONS) for i in range(chosen.clips)]
    begun = time.perf_counter()
    clips = clips_of_classes(pipe, labels, OPTIONS, frames=16, steps=SAMPLING, guidance=3.0)
    seconds = (time.perf_counter() - begun) / len(clips)
    fake = TensorSource(to_uint8(clips).permute(0, 4, 1, 2, 3).contiguous())
    real = SceneSource(SceneDataset(options=HELD_OUT, first_seed=FIRST_SEED, count=len(clips), frames=16, plain=True))
    values = measure(fake, real, ["fvd"], find_protocol("ours", {"frames": 16}), cache=chosen.cache).result.values
    return {
        "read back": read_classes(clips, labels, OPTIONS),
        "FVD[scenes-3d]": next(value.value for value in values if value.name.startswith("FVD")),
        "seconds_per_clip": seconds,
    }


if __name__ == "__main__":
    main()
