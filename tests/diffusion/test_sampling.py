"""The sampling loop on a distribution whose velocity is known: every scheduler must end at the data."""

import diffusers
import pytest
import torch

from longtake.backbones.waver import HybridStreamDiT
from longtake.diffusion.conditions import Conditions
from longtake.diffusion.guidance import APG, CFG, cfg
from longtake.diffusion.sampling import draw_noise, prediction_kind, sample, velocity_denoiser, velocity_of
from longtake.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")  # of NumPy 2, inside schedulers

SHAPE = (2, 3, 2, 2)
TEXT = Conditions(torch.zeros(2, 1, 1))
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
PLAIN = {"clip_sample": False}


def noise(seed=0, batch=2):
    return draw_noise(SHAPE, [torch.Generator().manual_seed(seed + i) for i in range(batch)])


class Gaussian:
    """Data are N(mean, std^2): x_sigma is Gaussian too, and the best velocity is a straight line in x."""

    def __init__(self, mean=1.5, std=0.3):
        self.mean, self.std, self.infos, self.inputs = mean, std, [], []

    def __call__(self, x, info, conditions):
        self.infos.append(info)
        self.inputs.append(x)
        sigma = info.sigma
        variance = (1 - sigma) ** 2 * self.std**2 + sigma**2
        centred = x - (1 - sigma) * self.mean
        noise = sigma / variance * centred
        data = self.mean + (1 - sigma) * self.std**2 / variance * centred
        return noise - data


SCHEDULERS = {
    "euler": (diffusers.FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
    "heun": (diffusers.FlowMatchHeunDiscreteScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, FLOW),
    "dpm++": (diffusers.DPMSolverMultistepScheduler, FLOW),
    "deis": (diffusers.DEISMultistepScheduler, FLOW),
    "sa": (diffusers.SASolverScheduler, FLOW),
    "ddim eps": (diffusers.DDIMScheduler, PLAIN),
    "ddim v": (diffusers.DDIMScheduler, {**PLAIN, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "ddim data": (diffusers.DDIMScheduler, {**PLAIN, "prediction_type": "sample"}),
    "ddpm": (diffusers.DDPMScheduler, PLAIN),
    "dpm++ eps": (diffusers.DPMSolverMultistepScheduler, {}),
    "unipc v": (diffusers.UniPCMultistepScheduler, {"prediction_type": "v_prediction"}),
    "euler eps": (diffusers.EulerDiscreteScheduler, {}),
    "euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_turns_noise_into_the_data(name):
    kind, options = SCHEDULERS[name]
    steps, batch = (200, 64) if name == "ddpm" else (40, 64)
    generators = [torch.Generator().manual_seed(100 + i) for i in range(batch)]
    out = sample(Gaussian(), kind(**options), noise(batch=batch), TEXT, steps=steps, generators=generators)
    assert out.dtype == torch.float32
    assert out.mean().item() == pytest.approx(1.5, abs=0.05)
    assert out.std().item() == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("name", ["euler", "unipc", "dpm++", "ddim eps", "ddim v", "euler eps"])
def test_deterministic_ones_follow_the_exact_trajectory(name):
    """Along the flow of a Gaussian, data = mean + std * noise: each starting point has one end."""
    kind, options = SCHEDULERS[name]
    start = noise()
    out = sample(Gaussian(), kind(**options), start, TEXT, steps=200)
    torch.testing.assert_close(out, 1.5 + 0.3 * start, atol=0.06, rtol=0)


def test_the_denoiser_is_given_points_on_the_flows_path():
    """For a converted scheduler: x of the right scale at the sigma that is named."""
    for kind, options in (SCHEDULERS["ddim eps"], SCHEDULERS["euler eps"], SCHEDULERS["dpm++ eps"]):
        denoiser = Gaussian(mean=0.0, std=1e-6)  # all data are 0, so x_sigma = sigma * noise
        start = noise()
        sample(denoiser, kind(**options), start, TEXT, steps=5)
        for info, x in zip(denoiser.infos, denoiser.inputs, strict=True):
            torch.testing.assert_close(x, info.sigma * start, atol=2e-2, rtol=2e-2)
        sigmas = [info.sigma for info in denoiser.infos]
        assert sigmas == sorted(sigmas, reverse=True) and sigmas[0] > 0.9


def test_step_info_counts_the_calls():
    denoiser, steps = Gaussian(), []
    sample(
        denoiser,
        diffusers.FlowMatchEulerDiscreteScheduler(),
        noise(),
        TEXT,
        steps=4,
        on_step=lambda info, x: steps.append((info.s, x.shape)),
    )
    infos = denoiser.infos
    assert [(i.run, i.s, i.S, i.branch, i.model) for i in infos] == [(0, s, 4, "cond", "transformer") for s in range(4)]
    assert infos[0].sigma == 1.0 and infos[0].noise == 1.0 and infos[0].t == 1000.0
    assert steps == [(s, (2, *SHAPE)) for s in range(4)]


class Prompted:
    """Velocity that depends on the text, so that both sides of guidance differ."""

    def __init__(self):
        self.branches = []

    def __call__(self, x, info, conditions):
        self.branches.append((info.branch, x.shape[0]))
        return x * 0.1 + conditions.text[:, 0, 0].view(-1, 1, 1, 1, 1) * info.sigma


@pytest.mark.parametrize("guider", [CFG(3.0), APG(4.0, momentum=-0.3)])
def test_batched_and_separate_guidance_agree_and_name_their_branches(guider):
    cond, null = Conditions(torch.full((2, 1, 1), 2.0)), Conditions(torch.full((2, 1, 1), -1.0))
    out, branches = {}, {}
    for batched in (True, False):
        denoiser = Prompted()
        scheduler = diffusers.UniPCMultistepScheduler(**FLOW)
        out[batched] = sample(denoiser, scheduler, noise(), cond, null=null, guider=guider, steps=3, batched=batched)
        branches[batched] = denoiser.branches
    torch.testing.assert_close(out[True], out[False], atol=1e-6, rtol=1e-6)
    assert branches[True] == [("cond_uncond", 4)] * 3
    assert branches[False] == [("cond", 2), ("uncond", 2)] * 3


def test_guidance_is_applied_to_the_velocity():
    """One Euler step from sigma 1 to 0: x - guided velocity, by hand."""
    cond, null = Conditions(torch.full((2, 1, 1), 2.0)), Conditions(torch.full((2, 1, 1), -1.0))
    start = noise()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    out = sample(Prompted(), scheduler, start, cond, null=null, guider=CFG(3.0), steps=1)
    torch.testing.assert_close(out, start - cfg(start * 0.1 + 2.0, start * 0.1 - 1.0, 3.0))


def test_guidance_of_scale_one_never_asks_for_the_null_side():
    denoiser = Prompted()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    sample(denoiser, scheduler, noise(), TEXT, null=TEXT, guider=CFG(1.0), steps=2)
    assert denoiser.branches == [("cond", 2)] * 2


def test_noise_and_result_of_a_seed_do_not_depend_on_the_batch():
    options = {**FLOW, "algorithm_type": "sde-dpmsolver++"}

    def run(seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        start = draw_noise(SHAPE, generators)
        scheduler = diffusers.DPMSolverMultistepScheduler(**options)
        return sample(Gaussian(), scheduler, start, TEXT, steps=4, generators=generators)

    torch.testing.assert_close(run([3, 8])[1], run([8])[0])
    assert not torch.allclose(run([3])[0], run([8])[0])


def test_a_scheduler_can_be_used_again_after_an_interrupted_run():
    scheduler = diffusers.UniPCMultistepScheduler(**FLOW)
    expected = sample(Gaussian(), scheduler, noise(), TEXT, steps=5)

    def stop(info, x):
        if info.s == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(Gaussian(), scheduler, noise(1), TEXT, steps=5, on_step=stop)
    assert torch.equal(sample(Gaussian(), scheduler, noise(), TEXT, steps=5), expected)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (diffusers.EDMEulerScheduler(), "use FlowMatchEuler"),
        (diffusers.CogVideoXDPMScheduler(), "old_pred_original_sample"),
        (diffusers.DDIMScheduler(), "clip_sample=False"),
        (diffusers.UniPCMultistepScheduler(use_flow_sigmas=True), "prediction_type='flow_prediction'"),
        (diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"), "none can be converted"),
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas=False"),
    ],
)
def test_what_cannot_be_converted_is_refused_before_anything_runs(scheduler, words):
    denoiser = Gaussian()
    with pytest.raises(BadInput, match=words):
        sample(denoiser, scheduler, noise(), TEXT, steps=2)
    assert not denoiser.infos
    with pytest.raises(BadInput):
        prediction_kind(scheduler)


def test_no_steps_are_refused():
    with pytest.raises(BadInput, match="at least 1"):
        sample(Gaussian(), diffusers.FlowMatchEulerDiscreteScheduler(), noise(), TEXT, steps=0)


def test_a_backbone_is_given_sigma_times_1000_also_where_the_scheduler_rounds_its_timesteps():
    backbone = HybridStreamDiT(
        latent_channels=2, mask_channels=1, text_width=1, width=16, heads=2, dual_blocks=1, single_blocks=1
    )
    seen = []
    backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[1], kwargs["info"])), with_kwargs=True
    )
    scheduler = diffusers.UniPCMultistepScheduler(**FLOW)
    out = sample(velocity_denoiser(backbone), scheduler, noise(), TEXT, steps=3)
    assert out.shape == (2, *SHAPE) and out.isfinite().all()
    for index, (timestep, info) in enumerate(seen):
        torch.testing.assert_close(timestep, scheduler.sigmas[index].expand(2) * 1000)
        assert info.s == index


@pytest.mark.parametrize("sigma", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("kind", ["flow", "epsilon", "sample", "v_prediction"])
def test_every_kind_of_prediction_is_a_velocity(kind, sigma):
    """A network that knows data and noise predicts them in its own way; the velocity is noise - data all the same."""
    data, level = noise(0).double(), noise(7).double()
    share = (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
    predictions = {
        "flow": level - data,
        "epsilon": level,
        "sample": data,
        "v_prediction": share**0.5 * level - (1 - share) ** 0.5 * data,
    }
    point = (1 - sigma) * data + sigma * level
    torch.testing.assert_close(velocity_of(kind, predictions[kind], point, sigma), level - data)


def test_timesteps_that_are_set_before_are_kept():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.9, 0.3])
    exact = Gaussian()
    sample(exact, scheduler, noise(), TEXT, steps=None)
    assert [round(info.sigma, 6) for info in exact.infos] == [1.0, 0.9, 0.3]
    assert {info.S for info in exact.infos} == {3}


def test_noise_is_drawn_in_the_dtype_that_is_asked_for():
    drawn = draw_noise(SHAPE, [torch.Generator().manual_seed(0)], torch.bfloat16)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, drawn.bfloat16().float())
    assert torch.equal(
        drawn[0], torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16).float()
    )
