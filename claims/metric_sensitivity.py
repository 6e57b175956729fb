"""What each metric of `longtake evaluate` sees: its curve over growing blur, noise, shuffling, freezing, drift and cuts.

Statement: `FVD[scenes-3d]` rises at every step of every temporal corruption that FID over frames does not see.
Measured: for each of three seeds two sets of 512 held-out renders that share no scene, A and B. B is corrupted in six
ways, four levels of each, and every metric that needs no file of the user's is taken of every level: distances, scores
and read-back against A on all clips; pairs (PSNR, SSIM, GMSD) against the uncorrupted B, and flow, on 16 of them. A
stronger level does what the weaker one did and more, with the same draws.
Temporal are shuffling, freezing, cuts and colour drift. FID does not see a corruption if in every seed `FID[scenes-2d]`
of its strongest level lies within the 95 % bootstrap interval of that of the uncorrupted B.
Baseline: FID over the frames of the same clips, by the network of the same size that was trained on the same scenes.
Threshold: `holds` when `FVD[scenes-3d]` rises from each level to the next of each of these corruptions in all seeds;
`does not hold` when one of them falls short in every seed, or FID sees them all; otherwise `inconclusive`.

    python claims/metric_sensitivity.py [--clips 512] [--few 16] [--seeds 0 1 2] [--cache DIR] [--threads 2]
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from support import write_result
from torch import Tensor
from torch.nn.functional import conv2d, pad

from longtake.data.scenes import Scene, SceneOptions, render_scenes, sample_scene
from longtake.evaluation.measure import measure
from longtake.evaluation.results import Value
from longtake.evaluation.sources import TensorSource
from longtake.video import to_uint8

FIRST_SEED = 1_000_000
"""Scenes from here on, 10,000 for each seed; networks, detector and starter are measured on others."""
ON_ALL = "fvd fid is flicker smoothness cuts subject background drift seam readback".split()
ON_FEW = "psnr ssim gmsd warping motion dynamic".split()
SEAM = 8
FVD, FID = "FVD[scenes-3d]", "FID[scenes-2d]"
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "metric-sensitivity.png"


# ------------------------------------------------------------------------------- corruptions, of uint8 (N, 3, T, H, W)


def shuffle(clips: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Let a share of the frames of each clip change places among themselves, each to another place."""
    frames = clips.shape[2]
    order = torch.stack([torch.randperm(frames, generator=generator) for _ in clips])[:, : round(share * frames)]
    sources = torch.arange(frames).repeat(len(clips), 1).scatter(1, order, order.roll(1, 1))
    return torch.stack([clip[:, places] for clip, places in zip(clips, sources, strict=True)])


def freeze(clips: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Stop each clip for the last share of its frames."""
    last = max(0, round((1 - share) * clips.shape[2]) - 1)
    return clips[:, :, torch.arange(clips.shape[2]).clamp_max(last)]


def cuts(clips: Tensor, count: float, generator: torch.Generator) -> Tensor:
    """Cut to the next clip of the set, and so on, so many times: every frame stays in the set, at its time."""
    piece = (torch.arange(clips.shape[2]) * int(count + 1) // (clips.shape[2] - 1)).clamp_max(int(count))
    return torch.stack([clips[:, :, t].roll(-int(piece[t]), 0) for t in range(clips.shape[2])], 2)


def colour_drift(clips: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Tint each clip more and more, towards a colour of its own, by `most` of the range in the last frame."""
    tint = torch.randn(len(clips), 3, 1, 1, 1, generator=generator)
    tint = most * tint / tint.abs().amax(1, keepdim=True)
    return _bytes(clips.float() / 255 + tint * torch.linspace(0, 1, clips.shape[2])[:, None, None])


def blur(clips: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Blur each frame by a Gaussian of `sigma` pixels."""
    reach = int(3 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = kernel / kernel.sum()
    planes = clips.float().flatten(0, 2)[:, None] / 255
    planes = conv2d(pad(planes, (reach, reach, 0, 0), "replicate"), kernel[None, None, None])
    planes = conv2d(pad(planes, (0, 0, reach, reach), "replicate"), kernel[None, None, :, None])
    return _bytes(planes.view(clips.shape))


def noise(clips: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise, `sigma` of the range, new in each frame."""
    return _bytes(clips.float() / 255 + sigma * torch.randn(clips.shape, generator=generator))


def _bytes(levels: Tensor) -> Tensor:
    return (levels.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Corruption:
    """A way to spoil clips. `levels`: growing, each of four; `unit`: of them; `temporal`: whether it concerns time."""

    name: str
    spoil: Callable[[Tensor, float, torch.Generator], Tensor]
    levels: tuple[float, ...]
    unit: str
    temporal: bool


CORRUPTIONS = (
    Corruption("shuffling", shuffle, (0.25, 0.5, 0.75, 1.0), "share of frames", True),
    Corruption("freezing", freeze, (0.25, 0.5, 0.75, 1.0), "last share of frames", True),
    Corruption("cuts", cuts, (1, 3, 7, 15), "cuts", True),
    Corruption("colour drift", colour_drift, (0.05, 0.1, 0.2, 0.4), "of the range, at the end", True),
    Corruption("blur", blur, (0.5, 1.0, 2.0, 3.0), "sigma in pixels", False),
    Corruption("noise", noise, (0.02, 0.05, 0.1, 0.2), "sigma, of the range", False),
)
COLOURS = ("#c2452d", "#1f6fb2", "#2e8b57", "#8a56ac", "#9a9da1", "#5b5e62")


# ------------------------------------------------------------------------------------------------------------ measuring


def render(first_seed: int, count: int) -> tuple[list[Scene], Tensor]:
    """Held-out scenes and their clips, uint8 (N, 3, 17, 64, 64)."""
    scenes = [sample_scene(first_seed + i, SceneOptions(split="held-out")) for i in range(count)]
    parts = [to_uint8(render_scenes(scenes[i : i + 16])) for i in range(0, count, 16)]
    return scenes, torch.cat(parts).permute(0, 4, 1, 2, 3).contiguous()


def take(clips: Tensor, b: Tensor, a: Tensor, scenes: Sequence[Scene], few: int, resamples: int, cache: Path):
    """All values of corrupted clips, against A on all of them and against their own originals in B on a few."""
    told = [scene.attributes for scene in scenes]
    fake = TensorSource(clips, attributes=told)
    values = measure(fake, TensorSource(a), ON_ALL, seams=[SEAM], cache=cache, resamples=resamples).result.values
    pairs = TensorSource(clips[:few]), TensorSource(b[:few])
    return [*values, *measure(*pairs, ON_FEW, cache=cache, resamples=0).result.values]


def curves_of(seed: int, options: argparse.Namespace, cache: Path) -> tuple[dict[str, dict[str, list[float]]], Value]:
    """{corruption: {metric: five numbers, of no corruption and of each level}}; and FID of the uncorrupted clips."""
    first = FIRST_SEED + 10_000 * seed
    _, a = render(first, options.clips)
    scenes, b = render(first + options.clips, options.clips)
    clean = take(b, b, a, scenes, options.few, 200, cache)
    found: dict[str, dict[str, list[float]]] = {}
    for corruption in CORRUPTIONS:
        rows = found[corruption.name] = {value.name: [value.value] for value in clean}
        for level in corruption.levels:
            spoilt = corruption.spoil(b, level, torch.Generator().manual_seed(seed))
            for value in take(spoilt, b, a, scenes, options.few, 0, cache):
                rows[value.name].append(value.value)
        told = "  ".join(f"{name} " + " ".join(f"{value:8.3f}" for value in rows[name]) for name in (FVD, FID))
        print(f"seed {seed}  {corruption.name:13} {told}", flush=True)
    return found, next(value for value in clean if value.name == FID)


def rises(curve: Sequence[float]) -> bool:
    """Whether each number is above the one before it."""
    return all(after > before for before, after in zip(curve, curve[1:], strict=False))


def judge(curves: list[dict[str, dict[str, list[float]]]], fids: list[Value]) -> tuple[str, dict[str, dict]]:
    """The verdict; and of each corruption whether FID sees it, and in which seeds each distance rises all the way."""
    found = {}
    for corruption in CORRUPTIONS:
        of_seeds = [one[corruption.name] for one in curves]
        inside = [
            fid.low is not None and fid.high is not None and fid.low <= rows[FID][-1] <= fid.high
            for rows, fid in zip(of_seeds, fids, strict=True)
        ]
        found[corruption.name] = {
            "temporal": corruption.temporal,
            "seen_by_fid": not all(inside),
            "fvd_rises": [rises(rows[FVD]) for rows in of_seeds],
            "fid_rises": [rises(rows[FID]) for rows in of_seeds],
        }
    unseen = [told for told in found.values() if told["temporal"] and not told["seen_by_fid"]]
    if not unseen or any(not any(told["fvd_rises"]) for told in unseen):
        return "does not hold", found
    return "holds" if all(all(told["fvd_rises"]) for told in unseen) else "inconclusive", found


# -------------------------------------------------------------------------------------------------------------- showing


def draw(curves: list[dict[str, dict[str, list[float]]]], path: Path) -> None:
    """A panel for each metric, a line for each corruption: mean over seeds, with all seeds in the band."""
    names = list(curves[0][CORRUPTIONS[0].name])
    columns = 5
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.35 * columns, 1.75 * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).flatten()
    for axes, name in zip(panels, names, strict=False):
        everything = []
        for corruption, colour in zip(CORRUPTIONS, COLOURS, strict=True):
            seeds = torch.tensor([one[corruption.name][name] for one in curves], dtype=torch.float64)
            style = {"color": colour, "linestyle": "-" if corruption.temporal else (0, (3, 1.5))}
            axes.plot(range(5), seeds.mean(0), marker="o", ms=2.5, lw=1.3, label=corruption.name, **style)
            axes.fill_between(range(5), seeds.amin(0), seeds.amax(0), color=colour, alpha=0.15, lw=0)
            everything.append(seeds)
        values = torch.stack(everything)
        if values.min() > 0 and 20 < values.max() / values.min() < 1e5:  # a wider range holds a 0 but for rounding
            axes.set_yscale("log")
        axes.set_title(name, fontsize=8.5, loc="left")
        axes.tick_params(labelsize=7, length=2, color="#c3c4c7")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#c3c4c7")
        axes.set_xticks(range(5))
        axes.set_xmargin(0.04)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(CORRUPTIONS), frameon=False, fontsize=9)
    figure.supxlabel("strength: 0 is not corrupted, 4 is the strongest level", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=512, help="of each of the two sets")
    parser.add_argument("--few", type=int, default=16, help="clips for flow and pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, help="folder of features, so that an interrupted run goes on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--image", type=Path, default=IMAGE)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "metric_sensitivity.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as own:
        found = [curves_of(seed, options, options.cache or Path(own)) for seed in options.seeds]
    curves, fids = [one for one, _ in found], [fid for _, fid in found]
    verdict, told = judge(curves, fids)
    draw(curves, options.image)
    for name, facts in told.items():
        seen = "seen by FID" if facts["seen_by_fid"] else "not seen by FID"
        print(f"{name:13} {seen:16} FVD rises in {sum(facts['fvd_rises'])} of {len(curves)} seeds")
    print("verdict:", verdict)
    rounded = {
        corruption.name: {
            name: [[float(f"{value:.5g}") for value in one[corruption.name][name]] for one in curves]
            for name in curves[0][corruption.name]
        }
        for corruption in CORRUPTIONS
    }
    record = {
        "name": "metric_sensitivity",
        "statement": "FVD[scenes-3d] rises with every temporal corruption that FID over frames does not see.",
        "verdict": verdict,
        "thresholds": {
            "fvd_rises": "at every level, in every seed",
            "unseen": "within FID's 95 % interval, every seed",
        },
        "corruptions": {c.name: told[c.name] | {"levels": [0, *c.levels], "unit": c.unit} for c in CORRUPTIONS},
        "fid_uncorrupted": [[fid.low, fid.value, fid.high] for fid in fids],
        "curves": rounded,
        "seeds": options.seeds,
        "clips": options.clips,
        "clips_for_flow_and_pairs": options.few,
    }
    write_result(options.out, record)
    print("written:", options.image)


if __name__ == "__main__":
    main()
