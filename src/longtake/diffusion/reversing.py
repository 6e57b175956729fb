"""The step of a sampler and its inverse, written down from the noise levels on both sides.

Every scheduler's sample is x = a * data + b * noise. A first-order deterministic step takes data and noise from one
prediction and puts them together at the next level, y = a' * data + b' * noise, which is linear in the sample and in
what the network predicts:

    y = keep * x + push * prediction                                    x = (y - push * prediction) / keep

    velocity (a = 1 - b)   keep = 1                              push = b' - b
    noise                  keep = a' / a                         push = b' - a' b / a
    data                   keep = b' / b                         push = a' - b' a / b
    v, with r^2 = a^2+b^2  keep = (a a' + b b') / r^2            push = (b' a - a' b) / r

So the inverse holds what the network predicts, for DDIM x = a (y - b' noise) / a' + b noise. diffusers' own inverse
schedulers are not used: since 0.23 they read their timestep as the target, where it was the origin before.

Solvers of several steps make this very step while they remember nothing; `forget` takes what they remember.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from longtake.errors import Unsupported

SINGLE = (
    "FlowMatchEulerDiscreteScheduler",
    "DDIMScheduler",
    "CogVideoXDDIMScheduler",
    "EulerDiscreteScheduler",
)
"""Schedulers whose every step is first-order and deterministic."""
SEVERAL = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler", "DEISMultistepScheduler")
"""Schedulers whose step is that one as long as they remember no earlier step."""
STAGES = ("FlowMatchHeunDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler")
"""Schedulers that make a step of two calls."""


@dataclass(frozen=True)
class Level:
    """A noise level: sample = data * clean latents + noise * standard normal noise."""

    data: float
    noise: float

    @property
    def sigma(self) -> float:
        """Of the same point on the flow's path, in [0, 1]."""
        return self.noise / (self.data + self.noise)


@dataclass(frozen=True)
class LinearStep:
    """y = keep * x + push * prediction."""

    keep: float
    push: float

    def forward(self, x: Tensor, prediction: Tensor) -> Tensor:
        """The sample at the next level."""
        return self.keep * x + self.push * prediction

    def back(self, y: Tensor, prediction: Tensor) -> Tensor:
        """The sample from which the same prediction leads to y."""
        return (y - self.push * prediction) / self.keep


def step_between(kind: str, here: Level, there: Level) -> LinearStep:
    """The first-order step from one level to the next.

    Args:
        kind: what is predicted, as `longtake.diffusion.sampling.prediction_kind`.
        here, there: levels with `here.noise` > 0, and `here.data` > 0 for "epsilon".
    """
    a, b, after_a, after_b = here.data, here.noise, there.data, there.noise
    if kind == "flow":
        return LinearStep(1.0, after_b - b)
    if kind == "epsilon":
        return LinearStep(after_a / a, after_b - after_a * b / a)
    if kind == "sample":
        return LinearStep(after_b / b, after_a - after_b * a / b)
    r = math.hypot(a, b)
    return LinearStep((a * after_a + b * after_b) / r**2, (after_b * a - after_a * b) / r)


def levels(scheduler: Any, kind: str, index: int) -> tuple[Level, Level]:
    """Noise levels before and after a step, as the scheduler itself takes them.

    Args:
        scheduler: with its timesteps set. kind: as `step_between`. index: of the step.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        pair = float(sigmas[index]), float(sigmas[index + 1])
        if kind == "flow":
            here, there = (Level(1 - sigma, sigma) for sigma in pair)
        elif type(_own(scheduler)).__name__ == "EulerDiscreteScheduler":  # variance exploding
            here, there = (Level(1.0, sigma) for sigma in pair)
        else:
            here, there = (Level(1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)) for sigma in pair)
        return here, there
    t, trained = int(scheduler.timesteps[index]), scheduler.config.num_train_timesteps
    before = t - trained // scheduler.num_inference_steps
    kept = float(scheduler.alphas_cumprod[t])
    then = float(scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod)
    return Level(math.sqrt(kept), math.sqrt(1 - kept)), Level(math.sqrt(then), math.sqrt(1 - then))


def check_reversible(scheduler: Any) -> None:
    """Raise Unsupported, with the remedy, for a scheduler whose steps cannot be undone."""
    own = _own(scheduler)
    name, config = type(own).__name__, own.config
    solver = str(config.get("algorithm_type", ""))
    if config.get("stochastic_sampling"):
        why = "with stochastic_sampling=True draws noise in its steps"
    elif solver.startswith("sde"):
        why = f"with algorithm_type='{solver}' draws noise in its steps"
    elif name in SINGLE + SEVERAL:
        return
    elif name in STAGES:
        why = "makes each step of two calls"
    else:
        why = "draws noise in its steps, or makes steps of a kind that is not known"
    raise Unsupported(
        f"{name} {why}, so that a step cannot be undone; use FlowMatchEulerDiscreteScheduler for a network that predicts "
        "velocities, or DDIMScheduler"
    )


def forget(scheduler: Any) -> None:
    """Make a solver of several steps begin anew at the sample that it is given next; others remember nothing."""
    own = _own(scheduler)
    if type(own).__name__ in SEVERAL:
        own.model_outputs = [None] * len(own.model_outputs)
        own.lower_order_nums = 0
        if hasattr(own, "last_sample"):
            own.last_sample = None


def _own(scheduler: Any) -> Any:
    """The scheduler of diffusers behind one of a dialect."""
    return getattr(scheduler, "own", scheduler)
