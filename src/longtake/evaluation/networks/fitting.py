"""Train the feature networks on scenes, both at once: ``scenes-3d`` on clips, ``scenes-2d`` on single frames of them.

    python -m longtake.evaluation.networks.fitting --scenes DIR [--steps 2400] [--out src/longtake/starters]

An attribute of a scene may have two values, one for each object; its target is the distribution over them, one half
each. Nothing is blurred or made noisy on the way: what a network was trained to overlook, its distance cannot see.
Clips begin at frame 0 or later, so that no feature stands for a place in time.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longtake.data.scenes import SceneDataset, SceneOptions
from longtake.errors import BadData, LongtakeError
from longtake.evaluation.networks.scene_classifier import (
    WIDTHS,
    WINDOW,
    SceneClassifier,
    set_normalisation,
    to_input,
)
from longtake.video import to_uint8

HELD_OUT_SEED = 700_000
"""First seed of the held-out scenes that the networks' own accuracy is measured on; the starter's claim uses others."""
FRAME_HEADS = ("shape", "colour", "background", "number")
"""What a single frame shows; clips show "motion" and "camera" besides."""
_NORMALISED_ON = 512


def heads_of(options: SceneOptions, *, frames: bool) -> dict[str, list[str]]:
    """Names of each attribute that the scenes of `options` can show."""
    paired = ["still", "slide-left", "slide-right", "roll-left", "roll-right", "pushed"]
    paired += ["walk-left", "walk-right"] if "figure" in options.shapes else []
    names = {
        "shape": list(options.shapes),
        "colour": list(options.colours),
        "background": list(options.backgrounds),
        "number": ["1", "2"],
        "motion": list(dict.fromkeys([*options.motions, *paired])),
        "camera": list(options.cameras),
    }
    return {name: names[name] for name in (FRAME_HEADS if frames else names)}


def targets(heads: dict[str, list[str]], attributes: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """What is true of each scene, as a distribution over the names of each head: (B, names), rows that sum to 1."""
    found = {name: torch.zeros(len(attributes), len(names)) for name, names in heads.items()}
    for row, told in enumerate(attributes):
        for name, names in heads.items():
            values = _values(name, told)
            for value in values:
                found[name][row, names.index(value)] += 1 / len(values)
    return found


@dataclass
class Fitting:
    """Two networks in training.

    Attributes:
        options: what worlds the scenes show. seed: of weights, order and offsets.
        networks: "scenes-3d" and "scenes-2d".
        losses: the mean loss of both, one a step.
    """

    options: SceneOptions = field(default_factory=SceneOptions)
    widths: Sequence[int] = WIDTHS
    seed: int = 0
    networks: dict[str, SceneClassifier] = field(init=False)
    losses: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.networks = {
            name: _drawn(
                SceneClassifier(heads_of(self.options, frames=window == 1), window, self.widths), self.generator
            )
            for name, window in (("scenes-3d", WINDOW), ("scenes-2d", 1))
        }


def fit(
    fitting: Fitting,
    load: Callable[[list[int]], tuple[Tensor, list[dict[str, Any]]]],
    count: int,
    *,
    steps: int = 2400,
    batch: int = 32,
    rate: float = 4e-3,
    autocast: bool = True,
    report: Callable[[int, float], Any] | None = None,
) -> None:
    """Train both networks in place, then bring their features to mean 0 and their spread over clips of the same set.

    Args:
        fitting: the networks.
        load: from clip numbers to uint8 clips (B, 3, T, 64, 64), T at least 16, and the attributes of each.
        count: how many clips `load` knows.
        steps, batch, rate: of AdamW with one cycle. autocast: compute in bfloat16 while training.
        report: called with (step, loss).
    """
    generator = fitting.generator
    networks = fitting.networks.values()
    weights = [weight for network in networks for weight in network.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    for network in networks:
        nn.Module.to(network.train(), memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
    order: list[int] = []
    for step in range(steps):
        while len(order) < batch:
            order += torch.randperm(count, generator=generator).tolist()
        chosen, order = order[:batch], order[batch:]
        pixels, attributes = load(chosen)
        loss = torch.zeros(())
        for network in networks:
            seen = to_input(_window(pixels, network.config.window, generator))
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = network(seen.contiguous(memory_format=torch.channels_last_3d))
            true = targets(network.config.heads, attributes)
            loss = loss + sum(cross_entropy(logits[name].float(), true[name]) for name in true)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()
        schedule.step()
        fitting.losses.append(float(loss.detach()))
        if report is not None:
            report(step, fitting.losses[-1])
    some = torch.randperm(count, generator=generator)[:_NORMALISED_ON].tolist()
    for network in networks:
        nn.Module.to(network.eval(), memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        _normalise(network, (load(some[i : i + batch])[0] for i in range(0, len(some), batch)), generator)


@torch.no_grad()
def measure_own_accuracy(network: SceneClassifier, clips: Sequence[tuple[Tensor, list[dict[str, Any]]]]) -> None:
    """Tell the attributes of held-out clips, given in batches, and store the shares of clips told right in the config.

    A clip is right in an attribute when the names that score highest, as many as it shows, are those that it shows.
    """
    right: dict[str, float] = dict.fromkeys(network.config.heads, 0.0)
    total = 0
    for pixels, attributes in clips:
        logits = network(to_input(pixels[:, :, : network.config.window]))
        for name, true in targets(network.config.heads, attributes).items():
            shown = true > 0
            ranks = logits[name].argsort(1, descending=True).argsort(1)
            right[name] += float(((ranks < shown.sum(1, keepdim=True)) == shown).all(1).sum())
        total += len(pixels)
    network.register_to_config(own_accuracy={name: round(value / total, 4) for name, value in right.items()})


def scene_loader(scenes: SceneDataset) -> Callable[[list[int]], tuple[Tensor, list[dict[str, Any]]]]:
    """A `load` for `fit` over scenes, of which attributes are drawn once and pixels read when they are wanted."""

    def load(numbers: list[int]) -> tuple[Tensor, list[dict[str, Any]]]:
        items = [scenes[number] for number in numbers]
        pixels = torch.stack([to_uint8(item["pixels"]).movedim(-1, 0) for item in items])
        return pixels, [item["attributes"] for item in items]

    return load


def main(words: Sequence[str] | None = None) -> int:
    """Train, measure, save. Prints one line every 50 steps and the accuracies at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=Path, help="folder of pre-rendered training scenes; default: render as needed")
    parser.add_argument("--held-out", type=Path, help="folder of pre-rendered held-out scenes; default: render them")
    parser.add_argument("--count", type=int, help="training clips; default: all that are rendered, or 2,000")
    parser.add_argument("--held-out-count", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, required=True, help="folder for scenes-3d/ and scenes-2d/")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    scenes = SceneDataset(options.scenes, count=options.count or (None if options.scenes else 2000), plain=True)
    if options.scenes and scenes.rendered < len(scenes):
        scenes = SceneDataset(options.scenes, count=scenes.rendered, plain=True)
    held_out = SceneDataset(
        options.held_out,
        options=None if options.held_out else SceneOptions(split="held-out"),
        first_seed=None if options.held_out else HELD_OUT_SEED,
        count=options.held_out_count,
        plain=True,
    )
    if held_out.index.options.split != "held-out":
        raise BadData(f"{options.held_out} holds scenes of split {held_out.index.options.split}: give held-out ones.")
    fitting = Fitting(scenes.index.options, seed=options.seed)
    begun = time.perf_counter()

    def report(step: int, loss: float) -> None:
        if step % 50 == 49 or step + 1 == options.steps:
            recent = fitting.losses[-50:]
            seconds = time.perf_counter() - begun
            _say(f"step {step + 1}/{options.steps}  loss {sum(recent) / len(recent):.4f}  {seconds:.0f} s")

    fit(
        fitting,
        scene_loader(scenes),
        len(scenes),
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        report=report,
    )
    seconds = time.perf_counter() - begun
    load = scene_loader(held_out)
    numbers = list(range(len(held_out)))
    clips = [load(numbers[i : i + options.batch]) for i in range(0, len(numbers), options.batch)]
    for name, network in fitting.networks.items():
        measure_own_accuracy(network, clips)
        network.register_to_config(
            training={
                "clips": len(scenes),
                "first_seed": scenes.index.first_seed,
                "pair_share": scenes.index.options.pair_share,
                "steps": options.steps,
                "batch": options.batch,
                "rate": options.rate,
                "seed": options.seed,
                "seconds": round(seconds),
                "threads": options.threads,
                "final_loss": round(sum(fitting.losses[-50:]) / len(fitting.losses[-50:]), 4),
                "held_out": [held_out.index.first_seed, held_out.index.first_seed + len(held_out) - 1],
                "torch": torch.__version__,
            }
        )
        network.save_pretrained(options.out / name)
        _say(f"{options.out / name}  {network.config.own_accuracy}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _values(head: str, told: dict[str, Any]) -> list[str]:
    if head == "number":
        return [str(len(told["objects"]))]
    if head in ("background", "camera"):
        return [told[head]]
    return [thing[head] for thing in told["objects"]]


def _window(pixels: Tensor, window: int, generator: torch.Generator) -> Tensor:
    """Frames of uint8 clips (B, C, T, H, W): a window that begins anywhere, another for each clip."""
    starts = torch.randint(pixels.shape[2] - window + 1, (len(pixels),), generator=generator).tolist()
    return torch.stack([clip[:, start : start + window] for clip, start in zip(pixels, starts, strict=True)])


@torch.no_grad()
def _normalise(network: SceneClassifier, batches: Any, generator: torch.Generator) -> None:
    """Set mean and deviation of the features, and change the heads so that they say what they said before."""
    raw = torch.cat([network.raw_features(to_input(_window(b, network.config.window, generator))) for b in batches])
    set_normalisation(network, raw)
    for head in network.outputs.values():
        head.bias += head.weight @ network.feature_mean
        head.weight *= network.feature_deviation


def _drawn(network: SceneClassifier, generator: torch.Generator) -> SceneClassifier:
    """Weights from the generator: He's normal for convolutions, small ones for the heads."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                spread = (2 / weight[0].numel()) ** 0.5 if weight.ndim == 5 else 0.05
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    return network


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LongtakeError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
