"""The written-down step against the schedulers' own, and its inverse."""

import diffusers
import pytest
import torch

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.reversing import Level, LinearStep, check_reversible, forget, levels, step_between
from longtake.diffusion.sampling import prediction_kind, sample
from longtake.errors import Unsupported
from longtake.pipelines.foreign.mochi import Reversed

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
ZERO = {"clip_sample": False, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")


def reversed_euler():
    own = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    own.set_timesteps(6)
    own.set_begin_index(0)
    return Reversed(own)


SCHEDULERS = {
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow, terminal": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1),
    "mochi": reversed_euler,
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "deis": lambda: diffusers.DEISMultistepScheduler(**FLOW),
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "ddim, leading": lambda: diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
    "ddim data": lambda: diffusers.DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "ddim v": lambda: diffusers.DDIMScheduler(**ZERO, timestep_spacing="trailing"),
    "cogvideox": lambda: diffusers.CogVideoXDDIMScheduler(**ZERO, timestep_spacing="trailing", snr_shift_scale=3.0),
    "euler eps": lambda: diffusers.EulerDiscreteScheduler(),
    "euler v": lambda: diffusers.EulerDiscreteScheduler(prediction_type="v_prediction"),
    "dpm++ eps": lambda: diffusers.DPMSolverMultistepScheduler(),
    "unipc v": lambda: diffusers.UniPCMultistepScheduler(prediction_type="v_prediction"),
}
NEVER = {
    "DDPMScheduler": diffusers.DDPMScheduler(),
    "EulerAncestralDiscreteScheduler": diffusers.EulerAncestralDiscreteScheduler(),
    "SASolverScheduler": diffusers.SASolverScheduler(**FLOW),
    "sde-dpmsolver": diffusers.DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"),
    "stochastic_sampling": diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    "two calls": diffusers.FlowMatchHeunDiscreteScheduler(),
}


def drawn(seed):
    return torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_step_is_the_schedulers_own_and_can_be_undone(name):
    """Every step but the last, with a solver of several steps made to forget before each."""
    scheduler = SCHEDULERS[name]()
    check_reversible(scheduler)
    kind = prediction_kind(scheduler)
    if name != "mochi":
        scheduler.set_timesteps(6)
    x = drawn(0) * getattr(scheduler, "init_noise_sigma", 1.0)
    for index, t in enumerate(scheduler.timesteps[:-1]):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        prediction = drawn(1 + index)
        step = step_between(kind, *levels(scheduler, kind, index))
        forget(scheduler)
        expected = scheduler.step(prediction, t, x, return_dict=False)[0]
        made = step.forward(x, prediction)
        close = 3e-4 if name == "deis" else 2e-5  # it divides by the little data that there is at first
        torch.testing.assert_close(made, expected, atol=close, rtol=close)
        torch.testing.assert_close(step.back(made, prediction), x, atol=2e-5, rtol=2e-5)
        x = expected


@pytest.mark.parametrize("kind", ["flow", "epsilon", "sample", "v_prediction"])
def test_data_and_noise_are_put_together_again(kind):
    """Whatever is predicted of a point whose data and noise are known, the step leads to the point of the next level."""
    here, there = (Level(0.3, 0.7), Level(0.6, 0.4)) if kind == "flow" else (Level(0.6, 0.8), Level(0.8, 0.6))
    data, noise = drawn(0).double(), drawn(1).double()
    predictions = {"flow": noise - data, "epsilon": noise, "sample": data, "v_prediction": 0.6 * noise - 0.8 * data}
    step = step_between(kind, here, there)
    made = step.forward(here.data * data + here.noise * noise, predictions[kind])
    torch.testing.assert_close(made, there.data * data + there.noise * noise)


def test_ddims_inverse_is_that_of_the_paper():
    """x~ = a (y - b' e) / a' + b e."""
    here, there, y, e = Level(0.6, 0.8), Level(0.8, 0.6), drawn(0), drawn(1)
    found = step_between("epsilon", here, there).back(y, e)
    torch.testing.assert_close(found, 0.6 * (y - 0.6 * e) / 0.8 + 0.8 * e)


def test_no_signal_at_the_first_step_is_no_division_by_zero():
    """CogVideoX begins at a = 0, where holding the noise would lose the sample."""
    scheduler = SCHEDULERS["cogvideox"]()
    scheduler.set_timesteps(6)
    here, there = levels(scheduler, "v_prediction", 0)
    assert here.data < 1e-6
    step = step_between("v_prediction", here, there)
    assert 0.5 < step.keep < 1 and abs(step.push) < 1


@pytest.mark.parametrize("name", NEVER)
def test_what_cannot_be_undone_is_refused_by_name_with_the_remedy(name):
    with pytest.raises(Unsupported, match=f"{name}.*use FlowMatchEulerDiscreteScheduler") as told:
        check_reversible(NEVER[name])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["unipc", "dpm++", "deis"])
def test_a_solver_that_forgot_begins_anew(name):
    """From the third step on it makes the same as one that begins there."""
    forgetful, fresh = SCHEDULERS[name](), SCHEDULERS[name]()
    for scheduler in (forgetful, fresh):
        scheduler.set_timesteps(6)
    fresh.set_begin_index(2)
    x = drawn(0)
    for index in (0, 1):
        x = forgetful.step(drawn(5 + index), forgetful.timesteps[index], x, return_dict=False)[0]
    forget(forgetful)
    alone = x
    for index in (2, 3, 4):
        t, prediction = forgetful.timesteps[index], drawn(5 + index)
        x = forgetful.step(prediction, t, x, return_dict=False)[0]
        alone = fresh.step(prediction, t, alone, return_dict=False)[0]
        torch.testing.assert_close(x, alone, atol=1e-5, rtol=1e-5)


def test_a_clip_that_is_given_in_part_is_put_back_behind_every_step():
    levels_seen = []

    def clamp(x, sigma):
        levels_seen.append(sigma)
        return torch.cat([torch.full_like(x[:, :, :1], 7.0), x[:, :, 1:]], dim=2)

    made = sample(
        lambda x, info, given: x,
        diffusers.DDIMScheduler(clip_sample=False),
        drawn(0),
        Conditions(torch.zeros(2, 1, 1)),
        steps=4,
        clamp=clamp,
    )
    assert (made[:, :, 0] == 7).all()
    assert levels_seen == sorted(levels_seen, reverse=True) and len(levels_seen) == 4


def test_a_linear_step():
    assert LinearStep(2.0, -1.0).forward(torch.ones(1), torch.ones(1)) == 1
    assert LinearStep(2.0, -1.0).back(torch.ones(1), torch.ones(1)) == 1
