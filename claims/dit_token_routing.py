"""Dynamic token routing at small scale: tokens that pick their path cost less than a narrower network of the same accuracy.

Statement (arXiv 2308.03409): a backbone whose tokens choose their path through scales and depth keeps its accuracy at a
part of its cost, because it spends on what is hard to see.
Measured: images of 32x32 that hold one of six shapes (disc, square, triangle, cross, ring, star) in one of three sizes,
turned a little, on plain or textured ground, with noise; 12,000 to learn from, 3,000 to tell. Accuracy and
multiply-accumulates of gathered execution, in three seeds of weights and order; and the share of row gates that are open on
tokens of the object (their pixels hold some of it) and on those of the ground, over all maps of more than one token.
The set and the steps were chosen on the unrouted twin alone, so that it learns in a minute and is not perfect.
Networks: `routed 0.6` and `routed 0.4`, three columns of widths 16, 32, 48, 64, trained to these budgets (their gates
counted) by the task `classifier` as it is.
Baselines, trained alike: `static`, the unrouted twin; `narrow 0.6` and `narrow 0.4`, static and uniformly narrower, with
the width k, 2k, 3k, 4k whose cost is nearest to that share of the twin's. Between the three the static curve is taken as
straight, so that a routed network is compared at the cost that it has come to.
Thresholds: (A) routed 0.6 is at most 1 point below static; (B) both routed networks are above the static curve at their own
cost; (C) row gates of routed 0.6 are open more often on the object than on the ground (1.3 times is expected).
`holds` when all are met in every seed, `does not hold` when one of them is missed in every seed, else `inconclusive`.

    python claims/dit_token_routing.py [--steps 600] [--seeds 0 1 2] [--cache DIR] [--out FILE] [--picture FILE]

Finished trainings in the cache are taken as they are, and a stopped one goes on.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from support import write_result
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad
from torch.utils.data import Dataset

from longtake.recognition.token_routing import RoutedFeatures, TokenRoutingBackbone, draw_grid
from longtake.training.launch import run
from longtake.training.recipe import Recipe, resolve
from longtake.training.sources import Sets
from longtake.training.tasks.classifier import ClassifierTask
from longtake.video.images import write_image

SHAPES = ("disc", "square", "triangle", "cross", "ring", "star")
RADII = (5.0, 7.5, 11.0)
SIDE, TRAINED, TOLD = 32, 12_000, 3_000
BUDGETS = (0.6, 0.4)
WIDTH, COLUMNS = 16, 3


def shape_masks(kinds: Tensor, radii: Tensor, turns: Tensor, centres: Tensor) -> Tensor:
    """How much of each pixel the shape covers, (B, 32, 32) in [0, 1], edges a pixel wide.

    Args:
        kinds: (B,) numbers among SHAPES. radii: (B,) pixels. turns: (B,) radians. centres: (B, 2) pixels, x and y.
    """
    places = torch.arange(SIDE) + 0.5
    x = (places[None, None, :] - centres[:, 0, None, None]).expand(-1, SIDE, -1)
    y = (places[None, :, None] - centres[:, 1, None, None]).expand(-1, -1, SIDE)
    cos, sin, r = turns.cos()[:, None, None], turns.sin()[:, None, None], radii[:, None, None]
    x, y = cos * x + sin * y, cos * y - sin * x
    distance, angle = (x**2 + y**2).sqrt(), torch.atan2(y, x)

    def polygon(corners: int) -> Tensor:
        part = 2 * math.pi / corners
        return distance * torch.cos((angle + math.pi) % part - part / 2) - r * math.cos(math.pi / corners)

    tips = 0.5 + 0.5 * torch.cos(5 * angle)
    inside = torch.stack([  # below zero inside, in pixels
        distance - 0.9 * r,
        polygon(4),
        polygon(3),
        torch.minimum(torch.maximum(x.abs() - r, y.abs() - 0.3 * r), torch.maximum(x.abs() - 0.3 * r, y.abs() - r)),
        (distance - 0.72 * r).abs() - 0.24 * r,
        distance - r * (0.42 + 0.62 * tips**2),
    ])  # fmt: skip
    return (0.5 - inside[kinds, torch.arange(len(kinds))]).clamp(0, 1)


def grounds(count: int, generator: torch.Generator) -> Tensor:
    """Grey grounds (count, 32, 32) in [-1, 1]: half of them plain, the others stripes or checks of several sizes."""
    draw = torch.rand(count, 5, generator=generator)[:, :, None, None].unbind(1)
    textured, level, period, turn, checked = draw
    places = torch.arange(SIDE).float()
    x, y = places[None, None, :], places[None, :, None]
    wave = 2 * math.pi / (3 + 7 * period)
    stripes = torch.sin(wave * (x * torch.cos(math.pi * turn) + y * torch.sin(math.pi * turn)))
    across = torch.sin(wave * (y * torch.cos(math.pi * turn) - x * torch.sin(math.pi * turn)))
    pattern = torch.where(checked > 0.5, stripes * across, stripes)
    return 1.2 * level - 0.6 + 0.3 * pattern * (textured > 0.5)


def make_set(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (count, 3, 32, 32) in [-1, 1], classes (count,) and masks (count, 32, 32) bool."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(len(SHAPES), (count,), generator=generator)
    radii = torch.tensor(RADII)[torch.randint(len(RADII), (count,), generator=generator)]
    turns, spots = torch.rand(count, generator=generator), torch.rand(count, 2, generator=generator)
    centres = radii[:, None] + spots * (SIDE - 2 * radii[:, None])
    cover = shape_masks(kinds, radii, 0.5 * turns - 0.25 - math.pi / 2, centres)
    ground = grounds(count, generator)[:, None] + 0.2 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    sign = torch.where(ground.mean((1, 2, 3)) > 0, -1.0, 1.0)[:, None, None, None]
    colour = sign * (0.1 + 0.7 * torch.rand(count, 3, 1, 1, generator=generator))
    images = torch.lerp(ground, colour.expand_as(ground), cover[:, None])
    images = images + 0.08 * torch.randn(images.shape, generator=generator)
    return images.clamp(-1, 1), kinds, cover > 0.5


class Shapes(Dataset[dict[str, Any]]):
    """A set as items of the task `classifier`."""

    def __init__(self, count: int, seed: int) -> None:
        self.images, self.kinds, _ = make_set(count, seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        index = key[1] if isinstance(key, tuple) else key
        return {"pixels": self.images[index][:, None], "label": int(self.kinds[index])}


class ShapesTask(ClassifierTask):
    """The task `classifier` on these images."""

    def class_names(self) -> tuple[str, ...]:
        return SHAPES

    def data(self) -> Sets:
        if self.sets is None:
            self.sets = [Shapes(TRAINED, 1)], Shapes(256, 2)
        return self.sets


def config(width: int, gate: str) -> dict[str, Any]:
    """Arguments of a backbone; reductions fit maps of 8x8 and below."""
    return {
        "widths": [width, 2 * width, 3 * width, 4 * width],
        "heads": [1, 2, 3, 4],
        "reductions": [2, 1, 1, 1],
        "columns": COLUMNS,
        "gate": gate,
    }


def static_macs(width: int) -> int:
    """Multiply-accumulates of an image in a static network."""
    return TokenRoutingBackbone(**config(width, "none"), classes=SHAPES).full_macs((SIDE // 4, SIDE // 4))


def networks() -> dict[str, dict[str, Any]]:
    """Name -> configuration and budget."""
    full = static_macs(WIDTH)
    found = {"static": {"config": config(WIDTH, "none")}}
    for budget in BUDGETS:
        width = min(range(4, WIDTH), key=lambda k: abs(static_macs(k) - budget * full))
        found[f"narrow {budget}"] = {"config": config(width, "none")}
        found[f"routed {budget}"] = {"config": config(WIDTH, "hard"), "budget": budget}
    return found


def recipe(name: str, seed: int, chosen: argparse.Namespace) -> Recipe:
    """One training."""
    written = {
        "task": "classifier",
        "name": f"{name}, seed {seed}",
        "out": str(chosen.cache / f"{name.replace(' ', '-')}-{chosen.steps}-{seed}"),
        "seed": seed,
        "steps": chosen.steps,
        "precision": "fp32",
        "data": {"frames": 1, "height": SIDE, "width": SIDE, "batch_size": 64, "workers": 0},
        "classifier": networks()[name],
        "optimizer": {"lr": 4e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup": 50},
        "ema": {"decay": 0.99},
        "checkpoint": {"every": 100, "best": False},
        "validation": {"every": chosen.steps, "batch_size": 128},
        "samples": {"every": 0},
    }
    return resolve(written, {})[0]


@torch.no_grad()
def measured(network: TokenRoutingBackbone, images: Tensor, kinds: Tensor, masks: Tensor) -> dict[str, float]:
    """Accuracy in per cent, mean multiply-accumulates, and open row gates on object and ground."""
    right, macs, taken = 0, 0.0, torch.zeros(2, 2, dtype=torch.float64)
    for part in torch.arange(len(images)).split(250):
        found = network(images[part])
        assert found.logits is not None
        right += int((found.logits.argmax(1) == kinds[part]).sum())
        macs += float(found.macs.double().sum())
        taken += open_gates(found, masks[part])
    values = {"accuracy": 100 * right / len(images), "macs": macs / len(images)}
    if network.config.gate == "none":
        return values
    ground, thing = (taken[:, 0] / taken[:, 1]).tolist()
    return values | {"open on the object": thing, "open on the ground": ground, "ratio": thing / max(ground, 1e-9)}


def open_gates(found: RoutedFeatures, masks: Tensor) -> Tensor:
    """Open row gates and all of them, (2, 2) in rows of ground and object, at scales whose maps show both."""
    counts = torch.zeros(2, 2, dtype=torch.float64)
    for node in found.routes:
        if node.row is not None and node.size != (1, 1):
            own = max_pool2d(masks[:, None].float(), SIDE // node.size[0]).flatten(1) > 0
            for row, here in zip(counts, (~own, own), strict=True):
                row += torch.stack([node.row[here].sum(), here.sum()])
    return counts


def static_curve(points: list[tuple[float, float]], macs: float) -> float:
    """Accuracy of the static networks (macs, accuracy) at a cost: straight between them, level outside."""
    points = sorted(points)
    for (low, below), (high, above) in zip(points, points[1:], strict=False):
        if macs <= high:
            return below + (above - below) * max(0.0, macs - low) / (high - low)
    return points[-1][1]


def main() -> None:
    """Train, measure, print, draw, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path("runs/dit-token-routing-claim"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dit_token_routing.json")
    parser.add_argument("--picture", type=Path, help="where to draw images and their routes")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)

    told = make_set(TOLD, 3)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in networks()}
    for seed in chosen.seeds:
        for name in found:
            own = recipe(name, seed, chosen)
            run(own, resume=True, task=ShapesTask)
            network = TokenRoutingBackbone.from_pretrained(str(Path(own.out) / "export"), low_cpu_mem_usage=False)
            found[name].append(measured(network.eval(), *told))
            if "routed" in name:
                network.register_to_config(early_stop=0.0)
                never = measured(network, *told)
                found[name][-1] |= {f"{key}, without early stop": never[key] for key in ("accuracy", "macs")}
            print(
                f"seed {seed}  {name:10}", {key: round(value, 4) for key, value in found[name][-1].items()}, flush=True
            )
    if chosen.picture is not None:
        draw(Path(recipe("routed 0.6", chosen.seeds[0], chosen).out) / "export", chosen.picture)

    passed = compared(found)
    if all(all(seeds) for seeds in passed.values()):
        verdict = "holds"
    else:
        verdict = "does not hold" if any(not any(seeds) for seeds in passed.values()) else "inconclusive"
    print(passed, "verdict:", verdict)
    result = {
        "name": "dit_token_routing",
        "statement": "Tokens that pick their path keep accuracy at a part of the cost, and spend it on the object.",
        "verdict": verdict,
        "thresholds": {"points below static": 1.0, "static curve": "above, at both budgets", "object over ground": 1.0},
        "seeds": chosen.seeds,
        "steps": chosen.steps,
        "passed": passed,
        "networks": {name: one["config"] for name, one in networks().items()},
        "found": found,
    }
    write_result(chosen.out, result)


def compared(found: dict[str, list[dict[str, float]]]) -> dict[str, list[bool]]:
    """What of the thresholds each seed met."""
    passed: dict[str, list[bool]] = {"A": [], "B, 0.6": [], "B, 0.4": [], "C": []}
    for seed in range(len(found["static"])):
        one = {name: seeds[seed] for name, seeds in found.items()}
        points = [(one[name]["macs"], one[name]["accuracy"]) for name in one if "routed" not in name]
        passed["A"].append(one["routed 0.6"]["accuracy"] >= one["static"]["accuracy"] - 1.0)
        for budget in BUDGETS:
            own = one[f"routed {budget}"]
            passed[f"B, {budget}"].append(own["accuracy"] > static_curve(points, own["macs"]))
        passed["C"].append(one["routed 0.6"]["ratio"] > 1.0)
    return passed


@torch.no_grad()
def draw(folder: Path, picture: Path) -> None:
    """Three images, each beside its grid of nodes."""
    network = TokenRoutingBackbone.from_pretrained(str(folder), low_cpu_mem_usage=False).eval()
    images = make_set(8, 4)[0][[0, 3, 5]]
    found = network(images)
    rows = []
    for index, image in enumerate(images):
        grid = draw_grid(found, index, cell=40)
        shown = interpolate(image[None], scale_factor=grid.shape[1] // SIDE)[0]
        rows.append(torch.cat([pad(shown, (0, 8, 0, grid.shape[1] - shown.shape[1]), value=-0.5), grid], dim=2))
    write_image(torch.cat(rows, dim=2), picture)


if __name__ == "__main__":
    main()
