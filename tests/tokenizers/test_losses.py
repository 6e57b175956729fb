"""Each term of the tokenizer's loss against its formula, and what it is for."""

import math

import pytest
import torch

from longtake.errors import BadInput
from longtake.tokenizers.discriminator import PatchDiscriminator
from longtake.tokenizers.losses import RandomFeatures, TokenizerLoss, edge_error, feature_distance, kl_divergence

PIXELS = torch.rand(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
MEAN, LOGVAR = torch.zeros(2, 4, 2, 2, 2), torch.zeros(2, 4, 2, 2, 2)


def test_total_is_the_weighted_sum_of_the_named_terms():
    loss = TokenizerLoss(l1=0.5, mse=2.0, gradient=0.3, kl=0.1, perceptual=0.2)
    decoded = PIXELS + 0.1
    total, terms = loss(decoded, PIXELS, MEAN + 1, LOGVAR)
    assert set(terms) == {"l1", "mse", "gradient", "kl", "perceptual"}
    torch.testing.assert_close(terms["l1"], torch.tensor(0.1))
    torch.testing.assert_close(terms["mse"], torch.tensor(0.01))
    assert terms["gradient"] < 1e-6  # a constant error has no edges
    torch.testing.assert_close(terms["kl"], torch.tensor(0.5))
    torch.testing.assert_close(total, sum(getattr(loss, name) * value for name, value in terms.items()))
    assert not any(value.requires_grad for value in terms.values())


def test_terms_of_weight_zero_are_not_computed():
    _, terms = TokenizerLoss(l1=0.0, mse=1.0, kl=0.0)(PIXELS, PIXELS, MEAN, LOGVAR)
    assert set(terms) == {"mse"}
    assert TokenizerLoss().features is None


def test_kl_against_torch_distributions():
    mean, logvar = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, torch.exp(0.5 * logvar)), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_divergence(mean, logvar), expected.mean())


def test_edge_error_sees_a_flicker_and_a_blur_but_not_an_offset():
    flicker = torch.zeros(1, 1, 4, 4, 4)
    flicker[:, :, ::2] = 0.3
    torch.testing.assert_close(edge_error(flicker), torch.tensor(0.1))  # 0.3 in time, 0 in space
    assert edge_error(torch.full((1, 1, 4, 4, 4), 0.7)) == 0
    torch.testing.assert_close(edge_error(flicker[:, :, :1]), torch.tensor(0.0))  # one frame: no time


def test_perceptual_term_tells_blur_from_brightness_better_than_mse():
    """Of two errors with equal MSE, losing the texture counts more than a shift of brightness."""
    network = RandomFeatures()
    shifted = PIXELS * 0.5 + 0.1
    base = PIXELS * 0.5
    blurred = torch.nn.functional.avg_pool3d(base, (1, 3, 3), 1, (0, 1, 1))
    blurred = base + (blurred - base) * (0.1 / (blurred - base).square().mean().sqrt())
    assert feature_distance(network, blurred, base) > 2 * feature_distance(network, shifted, base)
    assert feature_distance(network, base, base) < 1e-12


def test_perceptual_gradient_reaches_the_reconstruction_alone():
    loss = TokenizerLoss(l1=0, kl=0, perceptual=1.0)
    decoded, pixels = (PIXELS * 0.9).requires_grad_(), PIXELS.clone().requires_grad_()
    loss(decoded, pixels, MEAN, LOGVAR)[0].backward()
    assert decoded.grad.abs().sum() > 0 and pixels.grad is None
    assert all(p.grad is None for p in loss.features.parameters())


def test_random_features_are_the_same_from_a_seed_and_fixed():
    a, b, c = RandomFeatures(seed=0), RandomFeatures(seed=0), RandomFeatures(seed=1)
    images = PIXELS[:, :, 0]
    assert all(torch.equal(x, y) for x, y in zip(a(images), b(images), strict=True))
    assert not torch.equal(a(images)[0], c(images)[0])
    assert [tuple(f.shape[1:]) for f in a(images)] == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]
    assert not any(p.requires_grad for p in a.parameters())


def test_flat_pictures_have_finite_gradients():
    decoded = torch.zeros(1, 3, 1, 8, 8, requires_grad=True)
    TokenizerLoss(perceptual=1.0)(decoded, torch.zeros(1, 3, 1, 8, 8), MEAN, LOGVAR)[0].backward()
    assert decoded.grad.isfinite().all()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_weight_out_of_range_is_refused(bad):
    with pytest.raises(BadInput, match="mse"):
        TokenizerLoss(mse=bad)


def test_the_adversarial_term_needs_a_discriminator():
    with pytest.raises(BadInput, match="discriminator"):
        TokenizerLoss(gan=0.1)(PIXELS, PIXELS, MEAN, LOGVAR)
    critic = PatchDiscriminator(width=8)
    decoded = PIXELS.clone().requires_grad_()
    total, terms = TokenizerLoss(l1=0, kl=0, gan=0.5)(decoded, PIXELS, MEAN, LOGVAR, critic)
    torch.testing.assert_close(total, -0.5 * critic(PIXELS)[-1].mean())
    total.backward()
    assert decoded.grad.abs().sum() > 0 and set(terms) == {"gan"}
