"""Compare readings with the attributes that were asked for."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from longtake.evaluation.readback.detector import Reading

ATTRIBUTES = ("colour", "shape", "motion", "background", "camera")
"""What is scored: the first three once per object, the others once per clip."""


@dataclass(frozen=True)
class Score:
    """Right readings and how many there were, per attribute of ATTRIBUTES."""

    right: dict[str, int]
    total: dict[str, int]

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of right readings in [0, 1], for the attributes that occurred."""
        return {name: self.right[name] / self.total[name] for name in ATTRIBUTES if self.total[name]}


def score_readings(readings: Sequence[Reading], wanted: Sequence[dict]) -> Score:
    """Count the right readings.

    Objects that were read are assigned to those asked for so that most attributes agree; an object that was not found
    counts as wrong in all three of its attributes.

    Args:
        readings: one per clip, with as many objects as were asked for.
        wanted: `Scene.attributes` of each prompt.
    """
    right, total = dict.fromkeys(ATTRIBUTES, 0), dict.fromkeys(ATTRIBUTES, 0)
    for reading, asked in zip(readings, wanted, strict=True):
        for name, agreed in _objects(reading, asked["objects"]).items():
            right[name] += agreed
            total[name] += len(asked["objects"])
        for name in ("background", "camera"):
            right[name] += getattr(reading, name) == asked[name]
            total[name] += 1
    return Score(right, total)


def _objects(reading: Reading, asked: Sequence[dict]) -> dict[str, int]:
    best: dict[str, int] = dict.fromkeys(("colour", "shape", "motion"), 0)
    for order in itertools.permutations(reading.objects):
        pairs = list(zip(order, asked, strict=False))
        agreed = {name: sum(getattr(seen, name) == want[name] for seen, want in pairs) for name in best}
        # Colour decides who is who before anything else is compared.
        if (agreed["colour"], sum(agreed.values())) > (best["colour"], sum(best.values())):
            best = agreed
    return best
