"""Any of diffusers' schedulers, set up for flow matching: sigma = 1 is noise, the network predicts noise - data."""

from typing import Any

import diffusers
from diffusers import SchedulerMixin

from longtake.diffusion.flow import TIMESTEPS
from longtake.errors import UnknownName, nearest

_ALIASES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "sa": "SASolverScheduler",
}
"""Short names, and the classes that they stand for; every class takes the same noise levels here."""

_FLOW_NATIVE = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def scheduler_named(name: str, *, shift: float = 1.0) -> SchedulerMixin:
    """Build a scheduler for flow matching.

    Args:
        name: `euler`, `heun`, `unipc`, `dpm++`, `deis`, `sa`, or the class name of one of these.
        shift: of the noise levels, sigma' = shift * sigma / (1 + (shift - 1) * sigma).

    Raises:
        UnknownName: naming the nearest name.
    """
    kind = _ALIASES.get(name.lower(), name)
    if kind not in _ALIASES.values():
        raise UnknownName(f"no scheduler is called '{name}'.{nearest(name.lower(), _ALIASES)}")
    options: dict[str, Any] = {"shift": shift}
    if kind not in _FLOW_NATIVE:
        options = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return getattr(diffusers, kind)(**options)


def noise_levels(steps: int, shift: float) -> list[float]:
    """Noise levels in (0, 1] of a run's steps, from noise to data, of Euler's scheduler for flow matching."""
    scheduler: Any = scheduler_named("euler", shift=shift)
    scheduler.set_timesteps(steps)
    return [float(t) / TIMESTEPS for t in scheduler.timesteps]


def noise_scheduler(steps: str = "ddim") -> SchedulerMixin:
    """A scheduler for networks that predict noise as DiT and Latte do: linear beta from 1e-4 to 0.02, 1,000 steps.

    Args:
        steps: `ddim`, which leaves a learned variance unread; or `ddpm`, which reads it.

    Raises:
        UnknownName: naming the nearest name.
    """
    options = {"beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False, "timestep_spacing": "linspace"}
    if steps == "ddim":
        return diffusers.DDIMScheduler(**options)
    if steps == "ddpm":
        return diffusers.DDPMScheduler(**options, variance_type="learned_range")
    raise UnknownName(f"no scheduler for noise is called '{steps}'.{nearest(steps, ['ddim', 'ddpm'])}")


def shift_of(scheduler: SchedulerMixin) -> float:
    """The shift that a scheduler was set up with; 1 where it has none."""
    config = scheduler.config
    return float(config.get("shift", config.get("flow_shift", 1.0)) or 1.0)


def describe_scheduler(scheduler: SchedulerMixin) -> dict[str, Any]:
    """Class name and configuration as plain JSON, for a record."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return {"class": type(scheduler).__name__, "config": {key: _plain(value) for key, value in config.items()}}


def scheduler_described(description: dict[str, Any]) -> SchedulerMixin:
    """The inverse of `describe_scheduler`. Raises UnknownName for a class that diffusers does not have."""
    kind = getattr(diffusers, str(description.get("class")), None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise UnknownName(f"diffusers has no scheduler called {description.get('class')!r}; check the record.")
    return kind.from_config(dict(description.get("config", {})))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
