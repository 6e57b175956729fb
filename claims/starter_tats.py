"""starter-tats: a clip of 1,028 frames still shows at its end what was asked for.

Statement (arXiv 2204.03638): a time-agnostic tokenizer and a hierarchy of transformers, trained on clips of 16 to 64 frames,
make clips of more than a thousand that stay with their class and their looks.
Measured: clips of 1,028 frames at 16 a second, as many of every class; in each of their 32 windows of 32 frames, of which
every second is looked at (16 frames at 8 a second, what the detector and the metric's network were trained on), the share
whose shape, whose motion, and both are read back, with those of held-out renders beside, and the share whose colour, which
nothing but the clip itself says, is still that of the first window; FVD[scenes-3d] of the windows of each quarter of the
clips against held-out renders of these scenes.
Baselines: the base of the same recipe, of equal size and training, with a sliding window that looks back at three latent
frames, and at one as published. It is not shipped; `--base` names its folder.
Thresholds: over the hierarchy's last 4 windows the share of both is at least 0.9 of that over its first 4, and not below
the share of either baseline; its FVD of the last quarter is at most 1.25 of that of the first. `holds` when all are met,
`does not hold` when the first is missed, else `inconclusive`.

    python claims/starter_tats.py [--model starter-tats] [--base FOLDER] [--each 2] [--cache DIR] [--out FILE]

Writes docs/images/tats-drift.png, and docs/images/tats-long.png, a sheet of the hierarchy's clips.
"""

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from support import write_result
from torch import Tensor

import longtake
from longtake.data.scenes import SceneDataset, SceneOptions
from longtake.data.scenes.classes import class_names
from longtake.evaluation.measure import measure
from longtake.evaluation.protocol import find_protocol
from longtake.evaluation.readback.fitting import shipped_detector
from longtake.evaluation.readback.of_classes import read_classes
from longtake.evaluation.sources import SceneSource, TensorSource
from longtake.video import to_uint8

IMAGES = Path(__file__).parents[1] / "docs" / "images"
GIVEN = {"relations": ("alone",), "cameras": ("static",), "motions": ("still", "bounce", "orbit", "spin")}
OPTIONS, HELD_OUT = SceneOptions(**GIVEN), SceneOptions(**GIVEN, split="held-out")
FIRST_SEED, RENDERS = 970_000, 512
WINDOW, STRIDE, ENDS = 32, 2, 4
SHEET, COLUMNS = 6, 12
THRESHOLDS = {"kept": 0.9, "FVD, last over first quarter": 1.25}


def windows(clips: Tensor) -> list[Tensor]:
    """uint8 (B, 3, T, H, W) -> every second frame of its windows; what is left over is not looked at."""
    return [part[:, :, ::STRIDE] for part in clips.split(WINDOW, dim=2) if part.shape[2] == WINDOW]


def floats(clips: Tensor) -> Tensor:
    """uint8 -> [-1, 1]."""
    return clips.float() / 127.5 - 1


def made(folder: str, context: int | None, labels: list[int], chosen: argparse.Namespace) -> dict[str, Any]:
    """Clips uint8 (B, 3, T, H, W) of a model, kept in the cache, and the seconds that each class took."""
    pipe: Any = longtake.load(folder)
    known = chosen.cache / f"{pipe.weights()[:16]}-{context}-{chosen.frames}x{chosen.each}.pt"
    if known.exists():
        return torch.load(known)
    clips, seconds = [], []
    for label in sorted(set(labels)):
        begun = time.perf_counter()
        output = pipe(
            class_names(OPTIONS)[label], frames=chosen.frames, seed=1000 * label, count=chosen.each,
            drawing={} if context is None else {"context": context},
        )  # fmt: skip
        seconds.append(time.perf_counter() - begun)
        clips.append(to_uint8(output.clip.pixels).permute(0, 4, 1, 2, 3))
        print(f"{folder}, looks back at {context}: class {label} in {seconds[-1]:.1f} s", flush=True)
    found = {"clips": torch.cat(clips), "seconds": seconds}
    torch.save(found, known)
    return found


def look(clips: Tensor, labels: list[int], chosen: argparse.Namespace) -> dict[str, Any]:
    """Shares of each window, and the FVD of each quarter."""
    parts = windows(clips)
    shares = [read_classes(floats(part), labels, OPTIONS) for part in parts]
    colours = [
        [one.objects[0].colour for one in shipped_detector().read(floats(part), [1] * len(part))] for part in parts
    ]
    for share, seen in zip(shares, colours, strict=True):
        share["colour kept"] = mean(float(a == b) for a, b in zip(colours[0], seen, strict=True))
    data = SceneDataset(options=HELD_OUT, first_seed=FIRST_SEED, count=RENDERS, frames=WINDOW // STRIDE, plain=True)
    distances = []
    for quarter in range(4):
        own = parts[quarter * len(parts) // 4 : (quarter + 1) * len(parts) // 4]
        protocol = find_protocol("ours", {"frames": WINDOW // STRIDE})
        result = measure(TensorSource(torch.cat(own)), SceneSource(data), ["fvd"], protocol, cache=chosen.cache).result
        distances.append(next(value.value for value in result.values if value.name.startswith("FVD")))
    return {"shares": {name: [share[name] for share in shares] for name in shares[0]}, "FVD[scenes-3d]": distances}


def ends(found: dict[str, Any]) -> tuple[float, float]:
    """Shares of both over the first and the last windows."""
    shares = found["shares"]["class"]
    return mean(shares[:ENDS]), mean(shares[-ENDS:])


def draw(found: dict[str, dict[str, Any]], ceiling: float) -> None:
    """The drift curves."""
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, one in found.items():
        for axes, what in ((left, "class"), (middle, "colour kept")):
            smooth = torch.tensor(one["shares"][what]).unfold(0, 4, 1).mean(-1)
            axes.plot(range(WINDOW * 2, WINDOW * 2 + WINDOW * len(smooth), WINDOW), smooth, label=name)
        right.plot([1, 2, 3, 4], one["FVD[scenes-3d]"], marker="o", label=name)
    left.axhline(ceiling, color="grey", linestyle=":", label="renders")
    left.set(xlabel="frame", ylabel="shape and motion read back", ylim=(0, 1.02))
    middle.set(xlabel="frame", ylabel="colour of the first window", ylim=(0, 1.02))
    right.set(xlabel="quarter of the clip", ylabel="FVD[scenes-3d]", xticks=[1, 2, 3, 4], ylim=(0, None))
    left.legend()
    figure.savefig(IMAGES / "tats-drift.png", dpi=100)


def sheet(clips: Tensor) -> None:
    """One clip in each row, frames spread over its length."""
    rows = clips[:: max(1, len(clips) // SHEET)][:SHEET]
    places = torch.linspace(0, clips.shape[2] - 1, COLUMNS).round().long()
    lines = [torch.cat(list(row[:, places].permute(1, 2, 3, 0)), dim=1) for row in rows]
    Image.fromarray(torch.cat(lines).numpy()).save(IMAGES / "tats-long.png")


def main() -> None:
    """Make, read, measure, print, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="starter-tats")
    parser.add_argument("--base", default="runs/starter-tats/base/export")
    parser.add_argument("--each", type=int, default=2, help="clips of each class")
    parser.add_argument("--frames", type=int, default=1028)
    parser.add_argument("--cache", type=Path, default=Path("runs/starter-tats-claim"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "starter_tats.json")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)

    labels = [label for label in range(len(class_names(OPTIONS))) for _ in range(chosen.each)]
    data = SceneDataset(
        options=HELD_OUT, first_seed=FIRST_SEED, count=RENDERS, frames=WINDOW // STRIDE, plain=True, labels=True
    )
    items = [data[i] for i in range(len(data))]
    renders = read_classes(
        torch.stack([item["pixels"] for item in items]), [int(item["label"]) for item in items], OPTIONS
    )
    found, seconds = {}, {}
    for name, folder, context in (
        ("hierarchy", chosen.model, None),
        ("base, 3 back", chosen.base, None),
        ("base, 1 back", chosen.base, 1),
    ):
        own = made(folder, context, labels, chosen)
        if name == "hierarchy":
            sheet(own["clips"])
        found[name], seconds[name] = look(own["clips"], labels, chosen), own["seconds"]
        first, last = ends(found[name])
        distances = [round(value, 2) for value in found[name]["FVD[scenes-3d]"]]
        print(f"{name:14} class {first:.3f} at first, {last:.3f} at last; FVD by quarter {distances}", flush=True)
    draw(found, renders["class"])

    first, last = ends(found["hierarchy"])
    distances = found["hierarchy"]["FVD[scenes-3d]"]
    reached = {
        "kept": last >= THRESHOLDS["kept"] * first,
        "not below the base": all(last >= ends(found[name])[1] for name in list(found)[1:]),
        "FVD": distances[-1] <= THRESHOLDS["FVD, last over first quarter"] * distances[0],
    }
    verdict = "holds" if all(reached.values()) else "inconclusive" if reached["kept"] else "does not hold"
    print("renders", renders, "verdict:", verdict, reached)
    write_result(
        chosen.out,
        {
            "name": "starter_tats",
            "statement": "Clips of 1,028 frames by a hierarchy that was trained on 64 stay with their class to the end.",
            "verdict": verdict,
            "reached": reached,
            "thresholds": THRESHOLDS,
            "found": found,
            "renders": renders,
            "seconds_of_each_class": seconds,
            "clips": len(labels),
            "frames": chosen.frames,
            "seeds": [1000 * label for label in sorted(set(labels))],
        },
    )


if __name__ == "__main__":
    main()
