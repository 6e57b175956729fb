"""Ranges of the numbers that a pipeline can be asked for; what a model's own sizes allow is the pipeline's to say."""

import math

from longtake.errors import BadInput, BadSize
from longtake.pipelines.records import Settings

MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_COUNT = 1024
MAX_SEED = 2**63 - 1


def check_settings(settings: Settings) -> None:
    """Raise BadInput for steps, guidance, seed or count out of range, and BadSize for a size that is no whole number."""
    for name, low, high in (("steps", 1, MAX_STEPS), ("count", 1, MAX_COUNT), ("seed", 0, MAX_SEED)):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadInput(f"{name} is {value!r}: expected a whole number from {low} to {high}")
    second = settings.guidance if settings.guidance_2 is None else settings.guidance_2
    for name, value in (("guidance", settings.guidance), ("guidance_2", second)):
        if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= MAX_GUIDANCE):
            raise BadInput(f"{name} is {value!r}: expected a number from 0 to {MAX_GUIDANCE:g}; 1 is no guidance")
    for name in ("frames", "height", "width"):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadSize(f"{name} is {value!r}: expected a whole number")
