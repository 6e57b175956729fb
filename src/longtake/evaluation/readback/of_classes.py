"""Clips of a class-conditional model of scenes, and whether they show their class."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from longtake.data.scenes import SceneOptions
from longtake.data.scenes.classes import class_kinds, class_names
from longtake.evaluation.readback.fitting import shipped_detector

BATCH = 64  # clips that the detector reads at a time


def clips_of_classes(
    pipe: Any, labels: Sequence[int], options: SceneOptions, *, frames: int, steps: int, guidance: float, seed: int = 0
) -> Tensor:
    """A clip of each label, in [-1, 1] and at the size that the model was trained on: (len(labels), 3, frames, H, W).

    Args:
        pipe: a pipeline whose classes are those of `options`.
        labels: numbers of classes. Those of one class are made as one batch.
        options: of the scenes, one object each.
        frames, steps, guidance: as of a call.
        seed: the clips of class c are drawn from seed + 1000 c, seed + 1000 c + 1 and so on.
    """
    names, clips = class_names(options), {}
    for label in sorted(set(labels)):
        places = [i for i, one in enumerate(labels) if one == label]
        made = pipe(
            names[label], frames=frames, steps=steps, guidance=guidance, seed=seed + 1000 * label, count=len(places)
        )
        clips |= dict(zip(places, made.clip.pixels, strict=True))
    return torch.stack([clips[i] for i in range(len(labels))])


def read_classes(clips: Tensor, labels: Sequence[int], options: SceneOptions) -> dict[str, float]:
    """Shares of clips (B, 3, T, H, W) in [-1, 1] whose "shape", "motion" and both ("class") are those of their labels."""
    detector, kinds = shipped_detector(), class_kinds(options)
    things = [one.objects[0] for part in clips.split(BATCH) for one in detector.read(part, [1] * len(part))]
    right = [
        (thing.shape == kinds[label][0], thing.motion == kinds[label][1])
        for thing, label in zip(things, labels, strict=True)
    ]
    return {
        "shape": mean(float(shape) for shape, _ in right),
        "motion": mean(float(motion) for _, motion in right),
        "class": mean(float(shape and motion) for shape, motion in right),
    }
