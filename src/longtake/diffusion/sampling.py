"""One sampling loop over any of diffusers' schedulers: noise in, latents out.

A denoiser always speaks flow matching: it is given x_sigma = (1 - sigma) * data + sigma * noise and returns the
velocity noise - data. Schedulers that are set up for flow matching take it as it is. For variance-preserving ones
(DDIM, DDPM, DPM++, Euler, ...), whose sample is sqrt(a) * data + sqrt(1 - a) * noise up to a factor, the same point lies
on the flow's path at
    sigma = sqrt(1 - a) / (sqrt(a) + sqrt(1 - a)),    x_sigma = sample / (sqrt(a) + sqrt(1 - a)),
and the velocity is turned into what the scheduler expects: noise, data, or sqrt(a) * noise - sqrt(1 - a) * data.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.flow import TIMESTEPS
from longtake.diffusion.guidance import Guider
from longtake.diffusion.reversing import LinearStep, check_reversible, forget, levels, step_between
from longtake.errors import BadInput, Unsupported
from longtake.runtime import StepInfo
from longtake.runtime.looping import Variant

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    from longtake.runtime.stack import Stack


class Denoiser(Protocol):
    """A velocity network as a sampling loop sees it."""

    def __call__(self, x: Tensor, info: StepInfo, conditions: Conditions) -> Tensor:
        """x (B, C, T, H, W) at noise level info.sigma -> velocity of the same shape.

        A network with a learned variance puts the variance's code behind it on the channel axis.
        """
        ...


def velocity_denoiser(backbone: "ModelMixin") -> Denoiser:
    """View one of our backbones as a denoiser. Inputs are cast to its dtype, the velocity comes back as float32."""

    def denoise(x: Tensor, info: StepInfo, conditions: Conditions) -> Tensor:
        given = conditions.to(x.device, backbone.dtype)
        level = info.t if info.sigma is None else info.sigma * TIMESTEPS  # some schedulers round their timesteps
        timestep = torch.full((x.shape[0],), level, device=x.device)
        of_class = {} if given.labels is None else {"labels": given.labels}
        x = x.to(backbone.dtype)
        return backbone(x, timestep, given.text, given.text_mask, given.frames, **of_class, info=info).float()

    return denoise


def draw_noise(
    shape: Sequence[int], generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw one clip's noise from each generator: float32 (len(generators), *shape), rounded to `dtype`.

    With generators on the CPU the noise of a seed is the same on every machine and in every batch. In a narrower dtype
    torch draws other numbers from the same seed.
    """
    return torch.stack(
        [torch.randn(tuple(shape), generator=g, device=g.device, dtype=dtype) for g in generators]
    ).float()


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    scheduler: "SchedulerMixin",
    noise: Tensor,
    cond: Conditions,
    *,
    steps: int | None,
    null: Conditions | None = None,
    guider: Guider | None = None,
    batched: bool = True,
    generators: Sequence[torch.Generator] | None = None,
    on_step: Callable[[StepInfo, Tensor], None] | None = None,
    stack: "Stack | None" = None,
    encode: Callable[[str], Conditions] | None = None,
    model_at: Callable[[float], str] | None = None,
    clamp: Callable[[Tensor, float], Tensor] | None = None,
) -> Tensor:
    """Sample a batch of clips.

    Args:
        denoiser: the velocity network.
        scheduler: any of diffusers' that `prediction_kind` accepts.
        noise: (B, C, T, H, W), standard normal, on the device of the run.
        cond: the batch's conditions.
        steps: given to the scheduler, which may make more calls than this (Heun). None: its timesteps have been set.
        null: the conditions without the prompt, or with the negative one. None = no guidance.
        guider: how the two predictions make one. None or of scale 1 = no guidance, and `null` is never computed.
        batched: ask for both predictions in one forward of twice the batch (branch "cond_uncond", null first), else in
            two ("cond", "uncond").
        generators: one per clip, for schedulers that add noise in their steps.
        on_step: called with (info, latents after the step) after each step; what it raises ends the run.
        stack: methods that are attached to the network; those that guide, or act before a step, are asked here.
        encode: the batch's conditions with another prompt, for methods that compare prompts.
        model_at: name of the network that makes the step at a timestep; None = one makes them all.
        clamp: (sample behind a step, sigma of its noise level) -> the sample with what is given of the clip put back.

    Returns:
        (B, C, T, H, W) float32, clean latents.

    Raises:
        BadInput: a scheduler that a velocity cannot be converted for, or steps < 1.
    """
    if steps is not None and steps < 1:
        raise BadInput(f"{steps} sampling steps; use at least 1")
    kind = prediction_kind(scheduler)
    learned = str(scheduler.config.get("variance_type", "")).startswith("learned")
    velocity_at = _guided(denoiser, cond, null, guider, batched, stack, encode)
    run = 0 if stack is None else stack.begin()
    accepts = signature(scheduler.step).parameters
    extra = {"generator": list(generators)} if generators is not None and "generator" in accepts else {}

    if steps is not None:
        scheduler.set_timesteps(steps, device=noise.device)
    x = noise.float() * getattr(scheduler, "init_noise_sigma", 1.0)
    total, trained = len(scheduler.timesteps), scheduler.config.num_train_timesteps
    for index, t in enumerate(scheduler.timesteps):
        alpha, point, sigma = _located(scheduler, kind, index, t, x)
        model = "transformer" if model_at is None else model_at(float(t))
        info = StepInfo(run, index, total, float(t), float(t) / trained, sigma, "cond", model)
        if stack is not None and stack.steers:
            loop = Loop(scheduler, kind, info, velocity_at, model_at, clamp)
            moved = stack.before_step(info, x, loop)
            if moved is not x:
                x = moved
                forget(scheduler)
                alpha, point, sigma = _located(scheduler, kind, index, t, x)
        made = velocity_at(point, info, None)
        velocity, code = made[:, : x.shape[1]], made[:, x.shape[1] :]
        output = velocity if kind == "flow" else _from_velocity(kind, velocity, point, sigma, alpha)
        if learned:
            if not code.shape[1]:
                raise BadInput(
                    "the scheduler reads a learned variance and the network gives none; use a fixed variance"
                )
            output = torch.cat([output, code], dim=1)
        if kind == "flow" and index == total - 1 and scheduler.sigmas[-1] > 0:
            x = point - sigma * velocity  # DEIS and SA stop above 0 and would leave noise: take the data predicted here
        else:
            x = scheduler.step(output, t, x, return_dict=False, **extra)[0]
        if clamp is not None:
            x = clamp(x, levels(scheduler, kind, index)[1].sigma)
        if on_step is not None:
            on_step(info, x)
    return x


class Loop:
    """The loop as methods of the sampler see it before a step: `longtake.runtime.looping.SamplingLoop`.

    Args:
        scheduler: with its timesteps set. kind: as `prediction_kind`.
        info: of the coming step. velocity_at: as `_guided` makes it. model_at, clamp: as `sample`.
    """

    def __init__(
        self,
        scheduler: "SchedulerMixin",
        kind: str,
        info: StepInfo,
        velocity_at: "Guided",
        model_at: Callable[[float], str] | None,
        clamp: Callable[[Tensor, float], Tensor] | None,
    ) -> None:
        self._scheduler, self._kind, self._info = scheduler, kind, info
        self._velocity_at, self._model_at, self._clamp = velocity_at, model_at, clamp

    @property
    def step(self) -> LinearStep:
        """The coming step, which is never the last. Raises Unsupported for a scheduler whose steps cannot be undone."""
        check_reversible(self._scheduler)
        return step_between(self._kind, *levels(self._scheduler, self._kind, self._info.s))

    def predict(self, x: Tensor, variant: Variant) -> Tensor:
        """What the scheduler takes, at the sample x and the timestep of the coming step.

        Raises:
            BadInput: a strength of guidance in a run without. Unsupported: a prompt where none can be encoded.
        """
        t = self._scheduler.timesteps[self._info.s]
        alpha, point, sigma = _located(self._scheduler, self._kind, self._info.s, t, x)
        info = replace(self._info, branch=variant.branch, extra=True)
        velocity = self._velocity_at(point, info, variant)[:, : x.shape[1]]
        return velocity if self._kind == "flow" else _from_velocity(self._kind, velocity, point, sigma, alpha)

    def clamp(self, x: Tensor, *, after: bool) -> Tensor:
        """What is given of the clip put back, at the noise level before or after the step."""
        if self._clamp is None:
            return x
        return self._clamp(x, levels(self._scheduler, self._kind, self._info.s)[after].sigma)

    def hands_over(self) -> bool:
        """Whether another network makes the step after this one."""
        later = self._scheduler.timesteps[self._info.s + 1 :]
        return self._model_at is not None and len(later) > 0 and self._model_at(float(later[0])) != self._info.model


Guided = Callable[[Tensor, StepInfo, Variant | None], Tensor]
"""(point, info whose branch is "cond" or the variant's, variant) -> guided velocity, of one run."""


def _guided(
    denoiser: Denoiser,
    cond: Conditions,
    null: Conditions | None,
    guider: Guider | None,
    batched: bool,
    stack: "Stack | None",
    encode: Callable[[str], Conditions] | None,
) -> Guided:
    """Guidance of one run, for its ordinary predictions and for variants of them."""
    both_at_hand = (
        null is not None and guider is not None and (guider.scale != 1 or bool(stack and stack.guides_at_all))
    )
    memories: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    prompts: dict[str | None, tuple[Conditions, Conditions | None]] = {}

    def conditions(prompt: str | None) -> tuple[Conditions, Conditions | None]:
        """With the prompt, and both, where both predictions are made in one forward."""
        if prompt not in prompts:
            if prompt is not None and encode is None:
                raise Unsupported(f"the prompt '{prompt}' cannot be encoded by this sampling loop; call the pipeline")
            own = cond if prompt is None or encode is None else encode(prompt)
            prompts[prompt] = own, null.join(own) if both_at_hand and batched and null is not None else None
        return prompts[prompt]

    def velocity_at(point: Tensor, info: StepInfo, variant: Variant | None) -> Tensor:
        own, both = conditions(None if variant is None else variant.prompt)
        how, with_both = guider, both_at_hand
        if variant is not None and variant.guidance is not None:
            how, with_both = _of_strength(guider if both_at_hand else None, variant.guidance), variant.guidance != 1
        if null is None or how is None or not with_both or (stack is not None and not stack.guides(info)):
            if stack is not None:
                stack.evaluated(info, 1)
            return denoiser(point, info, own)
        if stack is not None:
            stack.evaluated(info, 2)
        if both is None:
            with_prompt = denoiser(point, info, own)
            without = denoiser(
                point, replace(info, branch="uncond" if variant is None else f"{variant.branch}.uncond"), null
            )
        else:
            branch = "cond_uncond" if variant is None else variant.branch
            together = denoiser(torch.cat([point, point]), replace(info, branch=branch), both)
            without, with_prompt = together.chunk(2)
        channels = point.shape[1]  # a variance is not guided: it stays as it is with the prompt
        memory = memories["" if variant is None else variant.branch]

        def guide(cond: Tensor, null: Tensor) -> Tensor:
            return how(cond, null, point, info.sigma or 0.0, memory)

        pair = with_prompt[:, :channels], without[:, :channels]
        guided = guide(*pair) if stack is None else stack.guide(info, *pair, point, guide)
        return torch.cat([guided, with_prompt[:, channels:]], dim=1)

    return velocity_at


def _of_strength(guider: Guider | None, strength: float) -> Guider:
    """The run's guider at another strength."""
    if guider is None:
        raise BadInput(
            f"a strength of guidance of {strength:g} is asked for in a run without guidance, whose prediction without the "
            "prompt is not at hand; run with a guidance other than 1, or leave that strength out"
        )
    return replace(guider, scale=strength)  # type: ignore[type-var]


def prediction_kind(scheduler: "SchedulerMixin") -> str:
    """What a scheduler must be given: "flow" (the velocity as it is), "epsilon", "sample" or "v_prediction".

    Raises BadInput, with the remedy, for a scheduler for which a velocity cannot be converted.
    """
    name, config = type(scheduler).__name__, scheduler.config
    kind = config.get("prediction_type")
    parameters = signature(scheduler.step).parameters.values()
    needed = [p.name for p in parameters if p.default is Parameter.empty and p.kind is not Parameter.VAR_KEYWORD]
    if needed != ["model_output", "timestep", "sample"]:
        raise BadInput(f"{name} steps on ({', '.join(needed)}), more than a prediction; use a scheduler that does not")
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
        if kind not in (None, "flow_prediction"):
            raise BadInput(f"{name} has prediction_type '{kind}' on flow sigmas; use prediction_type='flow_prediction'")
        if config.get("invert_sigmas"):
            raise BadInput(f"{name} has invert_sigmas, so that 0 is noise; use invert_sigmas=False (1 is noise here)")
        return "flow"
    if not hasattr(scheduler, "alphas_cumprod") or kind not in ("epsilon", "sample", "v_prediction"):
        raise BadInput(
            f"{name} with prediction_type '{kind}' takes no velocity and none can be converted for it; use "
            "FlowMatchEulerDiscreteScheduler, or UniPCMultistepScheduler with use_flow_sigmas"
        )
    for option in ("clip_sample", "thresholding"):
        if config.get(option):
            raise BadInput(f"{name} has {option}=True, made for pixels in [-1, 1]; use {option}=False on latents")
    return kind


def _located(scheduler: "SchedulerMixin", kind: str, index: int, t: Tensor, x: Tensor) -> tuple[float, Tensor, float]:
    """(a, point on the flow's path, its sigma) of a sample; a is 0 for flow matching, which has no use for it."""
    if kind == "flow":
        return 0.0, x, float(scheduler.sigmas[index])
    return _onto_flow(scheduler, index, t, x)


def _onto_flow(scheduler: "SchedulerMixin", index: int, t: Tensor, x: Tensor) -> tuple[float, Tensor, float]:
    """(a, point on the flow's path, its sigma) of the sample of a variance-preserving or exploding scheduler."""
    scaled = scheduler.scale_model_input(x, t)
    factor = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64, device=x.device), t))
    if factor != 1:  # variance exploding: the sample is data + s * noise, scaled by 1/sqrt(1 + s^2) = sqrt(a)
        alpha = factor**2
    elif getattr(scheduler, "sigmas", None) is not None:
        alpha = 1 / (1 + float(scheduler.sigmas[index]) ** 2)
    else:
        alpha = float(scheduler.alphas_cumprod[int(t)])
    data, noise = alpha**0.5, (1 - alpha) ** 0.5
    return alpha, scaled / (data + noise), noise / (data + noise)


def _from_velocity(kind: str, velocity: Tensor, point: Tensor, sigma: float, alpha: float) -> Tensor:
    """A velocity at a point of the flow's path as noise, data or v-prediction."""
    data, noise = point - sigma * velocity, point + (1 - sigma) * velocity
    if kind == "sample":
        return data
    return noise if kind == "epsilon" else alpha**0.5 * noise - (1 - alpha) ** 0.5 * data


def velocity_of(kind: str, prediction: Tensor, point: Tensor, sigma: float) -> Tensor:
    """What a network of any kind predicts at a point of the flow's path, as a velocity; undone by the sampling loop.

    Args:
        kind: as `prediction_kind`.
        prediction, point: (B, C, T, H, W).
        sigma: of the point, below 1 for "epsilon" and above 0 for "sample".
    """
    if kind == "epsilon":
        return (prediction - point) / (1 - sigma)
    if kind == "sample":
        return (point - prediction) / sigma
    if kind == "v_prediction":
        square = (1 - sigma) ** 2 + sigma**2  # (1 - sigma, sigma) = sqrt(square) * (sqrt(a), sqrt(1 - a))
        return (2 * sigma - 1) / square * point + prediction / math.sqrt(square)
    return prediction
