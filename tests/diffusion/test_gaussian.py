import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from latte_recorded import fill, official, recorded

from longtake.diffusion.conditions import Conditions
from longtake.diffusion.gaussian import GaussianDiffusion, noise_denoiser
from longtake.diffusion.guidance import CFG
from longtake.diffusion.sampling import sample
from longtake.errors import BadInput
from longtake.runtime import StepInfo

TIMES = torch.tensor([0, 1, 500, 999])


def ours(x):
    return x.transpose(1, 2)


def ddpm(**changes):
    options = {"beta_start": 1e-4, "beta_end": 0.02, "variance_type": "learned_range", "clip_sample": False}
    return DDPMScheduler(**{**options, "timestep_spacing": "linspace", **changes})


def test_the_loss_is_the_official_codes():
    model = official(classes=5)
    latents, noise = (ours(fill((4, 4, 4, 8, 8), name, scale)) for name, scale in (("clean", 0.9), ("noise", 1.4)))
    labels = torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        made = GaussianDiffusion()(lambda x, t: model(x, t, labels=labels), latents, timestep=TIMES, noise=noise)
    wanted = recorded()
    torch.testing.assert_close(made.noise, wanted["mse"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.bound, wanted["vb"], atol=1e-5, rtol=2e-5)
    assert float(made.loss) == pytest.approx(float(wanted["loss"].mean()), abs=2e-5)


def test_the_bound_trains_the_variance_alone():
    latents, noise = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    made = torch.randn(2, 6, 2, 4, 4, requires_grad=True)
    loss = GaussianDiffusion()(lambda x, t: made, latents, timestep=torch.tensor([5, 900]), noise=noise).loss
    loss.backward()
    error = 2 * (made.detach()[:, :3] - noise) / noise[0].numel() / 2
    torch.testing.assert_close(made.grad[:, :3], error)
    assert made.grad[:, 3:].abs().min() > 0
    with pytest.raises(BadInput, match="3 channels and this objective needs 6"):
        GaussianDiffusion()(lambda x, t: x, latents, timestep=torch.tensor([5, 900]), noise=noise)


def test_variance_lies_between_its_two_ends():
    diffusion = GaussianDiffusion()
    code = torch.tensor([-1.0, 1.0, 0.0]).view(3, 1).expand(3, 2)
    step = torch.tensor([300, 300, 300])
    low, high, middle = diffusion.log_variance(code, step)[:, 0].tolist()
    kept = torch.cumprod(1 - diffusion.betas, 0)
    assert high == pytest.approx(math.log(diffusion.betas[300]), rel=1e-6)
    assert low == pytest.approx(math.log(diffusion.betas[300] * (1 - kept[299]) / (1 - kept[300])), rel=1e-6)
    assert middle == pytest.approx((low + high) / 2, rel=1e-6)


def test_a_perfect_prediction_has_no_error_and_the_least_bound():
    diffusion, latents, noise = GaussianDiffusion(), torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    steps = torch.tensor([10, 100])
    noisy = diffusion.add_noise(latents, noise, steps)
    low = torch.full_like(noise, -1.0)
    assert diffusion.bound(latents, noisy, steps, noise, low).abs().max() < 1e-4
    assert diffusion.bound(latents, noisy, steps, noise, -low).min() > 1e-6


def test_250_steps_are_the_official_ones():
    scheduler = ddpm()
    scheduler.set_timesteps(250)
    assert torch.equal(scheduler.timesteps.flip(0), recorded()["timesteps_250"])


def test_ten_steps_of_ddpm_are_the_official_codes(monkeypatch):
    model = official(classes=5)
    steps = iter([ours(fill((1, 4, 4, 8, 8), f"step {i}", 1.4)) for i in range(10)])
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **options: next(steps))
    start, cond = ours(fill((1, 4, 4, 8, 8), "start", 1.4)), Conditions(labels=torch.tensor([2]))
    made = sample(noise_denoiser(model), ddpm(), start, cond, steps=10)
    wanted = ours(recorded()["sampled"])
    assert (made - wanted).norm() < 1e-4 * wanted.norm()


def test_guidance_leaves_the_variance_as_it_is_with_the_prompt():
    model = official(classes=5)
    x = ours(fill((2, 4, 4, 8, 8), "latents", 1.5))[:1]
    wanted = ours(recorded()["guided"])[:1]
    seen = []

    class Watching(DDPMScheduler):
        def step(self, model_output, timestep, sample, generator=None, return_dict=True):
            seen.append((model_output, int(timestep)))
            return (sample,)

    scheduler = Watching.from_config(ddpm().config)
    monkey = scheduler.set_timesteps
    scheduler.set_timesteps = lambda *a, **k: monkey(timesteps=[400])
    conditions = [Conditions(labels=torch.tensor([label])) for label in (1, 5)]
    sample(noise_denoiser(model), scheduler, x, conditions[0], steps=1, null=conditions[1], guider=CFG(7.0))
    ((made, time),) = seen
    assert time == 400
    torch.testing.assert_close(made, wanted, atol=2e-5, rtol=1e-4)


def test_guidance_of_scale_1_is_the_conditional_prediction():
    model = official(classes=5)
    x, cond = torch.randn(1, 4, 2, 8, 8), Conditions(labels=torch.tensor([2]))
    null = Conditions(labels=torch.tensor([5]))
    plain = sample(noise_denoiser(model), ddpm(), x, cond, steps=3, generators=[torch.Generator().manual_seed(0)])
    options = {"null": null, "guider": CFG(1.0), "generators": [torch.Generator().manual_seed(0)]}
    assert torch.equal(plain, sample(noise_denoiser(model), ddpm(), x, cond, steps=3, **options))


def test_ddim_through_the_flow_is_ddim_on_the_network_itself():
    model = official()
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, timestep_spacing="trailing")
    x = start = torch.randn(1, 4, 2, 8, 8)
    scheduler.set_timesteps(50)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t.expand(1))[:, :4], t, x, return_dict=False)[0]
    made = sample(noise_denoiser(model), scheduler, start, Conditions(), steps=50)
    assert (made - x).norm() < 1e-4 * x.norm()


def test_a_scheduler_that_reads_a_variance_needs_one():
    model = official()
    bare = lambda x, info, cond: noise_denoiser(model)(x, info, cond)[:, :4]  # noqa: E731
    with pytest.raises(BadInput, match="fixed variance"):
        sample(bare, ddpm(), torch.randn(1, 4, 2, 8, 8), Conditions(), steps=2)


def test_the_network_is_asked_at_the_time_of_the_same_noise():
    asked = []

    class Network(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timestep, *args, **kwargs):
            asked.append((x, float(timestep[0])))
            return torch.zeros_like(x)

    kept = GaussianDiffusion().kept
    data, noise = torch.randn(1, 2, 1, 2, 2), torch.randn(1, 2, 1, 2, 2)
    for t in (0, 1, 437, 999):
        a = float(kept[t])
        sigma = math.sqrt(1 - a) / (math.sqrt(a) + math.sqrt(1 - a))
        point = (1 - sigma) * data + sigma * noise
        noise_denoiser(Network())(point, StepInfo(0, 0, 1, t, t / 1000, sigma, "cond"), Conditions())
        x, time = asked[-1]
        assert time == t
        torch.testing.assert_close(x, a**0.5 * data + (1 - a) ** 0.5 * noise, atol=1e-5, rtol=1e-5)
