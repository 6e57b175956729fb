"""Train the read-back detector on renders and measure its own accuracy on held-out ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longtake.data.scenes import world
from longtake.data.scenes.sampling import SceneOptions
from longtake.evaluation.networks.finding import STARTERS
from longtake.evaluation.readback.detector import ReadBackDetector
from longtake.evaluation.readback.scoring import score_readings

ABSENT = -100
"""Target of an object slot whose colour is not in the clip; cross entropy ignores it."""


def new_detector(options: SceneOptions) -> ReadBackDetector:
    """A detector for the vocabulary of `options`."""
    return ReadBackDetector(
        colours=list(options.colours),
        shapes=list(options.shapes),
        motions=[*options.motions, "pushed"],
        backgrounds=list(options.backgrounds),
        backdrops=list(world.BACKDROPS),
        cameras=list(options.cameras),
    )


def targets(detector: ReadBackDetector, attributes: list[dict]) -> dict[str, Tensor]:
    """Indices of what is true: "presence", "shape", "motion" (B, colours), "background", "backdrop", "camera" (B,)."""
    names = detector.config
    count, colours = len(attributes), len(names.colours)
    wanted = {"presence": torch.zeros(count, colours)}
    wanted |= {name: torch.full((count, colours), ABSENT) for name in ("shape", "motion")}
    wanted |= {name: torch.full((count,), ABSENT) for name in ("background", "backdrop", "camera")}
    for b, truth in enumerate(attributes):
        for thing in truth["objects"]:
            q = names.colours.index(thing["colour"])
            wanted["presence"][b, q] = 1
            wanted["shape"][b, q] = names.shapes.index(thing["shape"])
            wanted["motion"][b, q] = names.motions.index(thing["motion"])
        wanted["background"][b] = names.backgrounds.index(truth["background"])
        wanted["camera"][b] = names.cameras.index(truth["camera"])
        if truth["background_colour"]:
            wanted["backdrop"][b] = names.backdrops.index(truth["background_colour"])
    return wanted


WEIGHTS = {"shape": 1.0, "motion": 3.0, "background": 1.0, "backdrop": 0.5, "camera": 1.0}
"""Motion weighs most: a spin from standing still, and a roll from a slide, differ by little in the picture."""


def detector_loss(scores: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """Weighted sum of the cross entropies of all attributes."""
    loss = 2 * F.binary_cross_entropy_with_logits(scores["presence"].float(), wanted["presence"])
    for name, weight in WEIGHTS.items():
        logits = scores[name].float()
        if (wanted[name] != ABSENT).any():
            entropy = F.cross_entropy(logits.flatten(0, -2), wanted[name].flatten(), ignore_index=ABSENT)
            loss = loss + weight * entropy
    return loss


def roughen(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength, so that the detector also reads clips that are not clean renders."""
    strength = torch.rand(len(pixels), 1, 1, 1, 1, generator=generator)
    soft = F.avg_pool3d(pixels, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    mix = torch.rand(len(pixels), 1, 1, 1, 1, generator=generator) * (strength > 0.4)
    noise = torch.randn(pixels.shape, generator=generator)
    return pixels + mix * (soft - pixels) + 0.06 * strength * noise


def fit_detector(
    detector: ReadBackDetector,
    load: Callable[[list[int]], tuple[Tensor, list[dict]]],
    count: int,
    *,
    steps: int = 2200,
    batch: int = 32,
    rate: float = 3e-3,
    seed: int = 0,
    report: Callable[[int, float], Any] | None = None,
) -> None:
    """Train in place.

    Args:
        detector: from `new_detector`.
        load: from clip indices to (pixels (B, 3, T, H, W) in [-1, 1], attributes of each).
        count: number of clips that `load` knows.
        steps, batch, rate, seed: of AdamW with one cycle.
        report: called with (step, loss).
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    detector.train()
    order: list[int] = []
    for step in range(steps):
        if len(order) < batch:
            order += torch.randperm(count, generator=generator).tolist()
        chosen, order = order[:batch], order[batch:]
        pixels, attributes = load(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            scores = detector(roughen(pixels, generator))
        loss = detector_loss(scores, targets(detector, attributes))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if report:
            report(step, float(loss.detach()))
    detector.eval()


def measure_own_accuracy(detector: ReadBackDetector, clips: list[tuple[Tensor, list[dict]]]) -> dict[str, float]:
    """Read held-out renders, given as batches of (pixels, attributes), and store the accuracy in the config."""
    readings, wanted = [], []
    for pixels, attributes in clips:
        readings += detector.read(pixels, [len(truth["objects"]) for truth in attributes])
        wanted += attributes
    accuracy = score_readings(readings, wanted).accuracy
    detector.register_to_config(own_accuracy={name: round(value, 4) for name, value in accuracy.items()})
    return accuracy


def load_detector(folder: str | Path) -> ReadBackDetector:
    """Load a trained detector in evaluation mode."""
    return ReadBackDetector.from_pretrained(folder).eval()


def shipped_detector() -> ReadBackDetector:
    """The detector in the package, in eval mode."""
    return load_detector(STARTERS / "readback")
