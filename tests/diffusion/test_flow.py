"""Flow matching: densities of the noise levels, and the objective against a hand-made case."""

import pickle

import pytest
import torch

from longtake.diffusion.flow import FlowMatching, mode, shift_sigma, sigma_sampler
from longtake.errors import BadInput, UnknownName

MILLION = 1_000_000


def draws(sampler, count=MILLION):
    return sampler(count, torch.Generator().manual_seed(0))


def density(sigma, low, high):
    return ((sigma >= low) & (sigma < high)).double().mean().item() / (high - low)


def test_mode_with_shift_has_the_published_density():
    sigma = draws(sigma_sampler("mode", 3.0))
    assert sigma.dtype == torch.float32 and sigma.min() >= 0 and sigma.max() <= 1
    # by the definition: density 1/|ds/du|; at s = 0 (u = 1): f' = -1 - 1.29, ds/df = 3
    assert density(sigma, 0, 0.01) == pytest.approx(0.146, abs=0.012)
    bins = torch.histc(sigma, 200, 0, 1) / MILLION * 200
    assert bins.max().item() == pytest.approx(5.06, abs=0.12)
    assert (bins.argmax().item() + 0.5) / 200 == pytest.approx(0.75, abs=0.02)
    assert density(sigma, 0.995, 1.0001) == pytest.approx(1.31, abs=0.06)


def test_mode_density_by_its_derivative():
    """The three published values, exactly: density = 1 / |ds/du| at u = 1, 1/2 and 0."""
    u = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    sigma = shift_sigma(mode(u, 1.29), 3.0)
    (slope,) = torch.autograd.grad(sigma.sum(), u)
    torch.testing.assert_close(sigma.detach(), torch.tensor([0.0, 0.75, 1.0], dtype=torch.float64))
    expected = torch.tensor([0.146, 5.06, 1.31], dtype=torch.float64)
    torch.testing.assert_close(1 / slope.abs(), expected, atol=0.005, rtol=0)


def test_mode_zero_is_uniform():
    u = torch.rand(1000, dtype=torch.float64)
    torch.testing.assert_close(mode(u, 0.0), 1 - u)
    sigma = draws(sigma_sampler("mode", scale=0.0))
    bins = torch.histc(sigma, 20, 0, 1) / MILLION * 20
    assert (bins - 1).abs().max() < 0.02


def test_uniform_is_uniform():
    bins = torch.histc(draws(sigma_sampler("uniform")), 20, 0, 1) / MILLION * 20
    assert (bins - 1).abs().max() < 0.02


def test_lognorm_is_the_sigmoid_of_a_normal():
    sigma = draws(sigma_sampler("lognorm", location=0.5, scale=1.5)).double()
    logits = torch.logit(sigma.clamp(1e-7, 1 - 1e-7))
    assert logits.mean().item() == pytest.approx(0.5, abs=0.01)
    assert logits.std().item() == pytest.approx(1.5, abs=0.01)
    assert ((logits - 0.5).abs() < 1.5).double().mean().item() == pytest.approx(0.6827, abs=0.003)


@pytest.mark.parametrize("name", ["uniform", "lognorm", "mode"])
def test_shift_moves_every_draw_as_written(name):
    plain, shifted = draws(sigma_sampler(name), 1000), draws(sigma_sampler(name, 3.0), 1000)
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))
    assert torch.equal(draws(sigma_sampler(name, 1.0), 1000), plain)


def test_shift_one_is_the_identity_and_the_ends_stay():
    sigma = torch.rand(100)
    assert torch.equal(shift_sigma(sigma, 1.0), sigma)
    torch.testing.assert_close(shift_sigma(torch.tensor([0.0, 0.5, 1.0]), 3.0), torch.tensor([0.0, 0.75, 1.0]))
    torch.testing.assert_close(shift_sigma(shift_sigma(sigma, 3.0), 1 / 3), sigma)


def test_draws_follow_the_generator_and_samplers_can_be_sent_to_workers():
    sampler = pickle.loads(pickle.dumps(sigma_sampler("mode", 3.0)))
    assert torch.equal(draws(sampler, 5), draws(sigma_sampler("mode", 3.0), 5))
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(sampler(5, generator), sampler(5, generator))


def test_bad_names_and_parameters_are_refused():
    with pytest.raises(UnknownName, match="lognorm"):
        sigma_sampler("lognormal")
    for arguments in ({"shift": 0.0}, {"name": "lognorm", "scale": -1.0}, {"name": "mode", "scale": 5.0}):
        with pytest.raises(BadInput):
            sigma_sampler(**arguments)


def test_the_loss_is_the_squared_error_of_the_velocity():
    latents, noise = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5)
    sigma = torch.tensor([0.25, 1.0])
    seen = {}

    def predict(x, timestep):
        seen["x"], seen["t"] = x, timestep
        return torch.zeros_like(x)

    out = FlowMatching()(predict, latents, generator=torch.Generator(), sigma=sigma, noise=noise)
    torch.testing.assert_close(seen["x"][0], 0.75 * latents[0] + 0.25 * noise[0])
    assert torch.equal(seen["x"][1], noise[1])
    assert torch.equal(seen["t"], torch.tensor([250.0, 1000.0]))
    torch.testing.assert_close(out.each, (noise - latents).square().flatten(1).mean(1))
    torch.testing.assert_close(out.loss, out.each.mean())


def test_the_true_velocity_has_no_loss_and_leads_back_to_the_data():
    latents = torch.randn(4, 2, 1, 3, 3)

    def predict(x, timestep):  # the data are known here: v = (x - data) / sigma
        return (x - latents) / (timestep / 1000).view(-1, 1, 1, 1, 1)

    out = FlowMatching()(predict, latents, generator=torch.Generator().manual_seed(0))
    assert out.loss < 1e-6


def test_training_by_the_objective_learns_a_point():
    """All data are one point c: the best velocity at sigma is (x - c)/sigma, of which a + b*x is learnt at sigma = 1."""
    point = torch.tensor([1.0, -2.0, 0.5])
    layer = torch.nn.Linear(3, 3)
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        data, ones = point.expand(64, 3), torch.ones(64)
        loss = FlowMatching()(lambda x, t: layer(x), data, generator=generator, sigma=ones).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    noise = torch.randn(100, 3)
    torch.testing.assert_close(noise - layer(noise), point.expand(100, 3), atol=0.05, rtol=0)
