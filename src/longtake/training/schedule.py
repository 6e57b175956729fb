"""Learning-rate schedules: the share of the optimiser's rate at each step."""

import math

from longtake.training.recipe import ScheduleRecipe


def rate_share(step: int, steps: int, schedule: ScheduleRecipe) -> float:
    """Return the share in [0, 1] of the learning rate at ``step`` (the first is 0) of ``steps``.

    Linear warm-up, then ``constant``; or ``cosine`` from 1 down to the floor behind the last step; or ``trapezoid``:
    constant, then a straight line down to the floor over the last ``decay`` share of all steps.
    """
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    if schedule.name == "constant":
        return 1.0
    floor = schedule.floor
    if schedule.name == "cosine":
        progress = min(1.0, (step - schedule.warmup) / max(1, steps - schedule.warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    left = max(0, steps - step) / max(1, round(schedule.decay * steps))
    return floor + (1 - floor) * min(1.0, left)
