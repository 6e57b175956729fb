"""Guidance: identities of projection, norm limits, and the equality of APG with CFG."""

import pytest
import torch

from longtake.diffusion.guidance import APG, CFG, apg, cfg, limit_norm, project
from longtake.errors import BadInput

SHAPE = (2, 4, 3, 5, 6)


def pair():
    return torch.randn(SHAPE), torch.randn(SHAPE) * torch.tensor([1.0, 9.0, 30.0]).view(1, 1, 3, 1, 1)


def frame_norms(x):
    return x.square().sum((1, 3, 4)).sqrt()


def test_cfg_is_a_line_through_both():
    cond, null = pair()
    torch.testing.assert_close(cfg(cond, null, 0.0), null)
    torch.testing.assert_close(cfg(cond, null, 1.0), cond, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cfg(cond, null, 3.0), 3 * cond - 2 * null, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 4.0, 8.0])
def test_apg_with_eta_one_and_no_threshold_is_cfg(scale):
    cond, null = torch.randn(2, *SHAPE, dtype=torch.float64)
    guided, _ = apg(cond, null, scale, eta=1.0)
    torch.testing.assert_close(guided, cfg(cond, null, scale), atol=1e-6, rtol=1e-6)
    guided, _ = apg(cond.float(), null.float(), scale, eta=1.0)
    torch.testing.assert_close(guided.double(), cfg(cond, null, scale), atol=1e-5, rtol=1e-5)


def test_parallel_and_orthogonal_parts_sum_to_the_whole_and_are_what_they_are_called():
    difference, onto = pair()
    parallel, orthogonal = project(difference, onto)
    torch.testing.assert_close(parallel + orthogonal, difference, atol=1e-6, rtol=1e-6)
    dots = (orthogonal.double() * onto.double()).sum((1, 3, 4))
    assert (dots / frame_norms(onto.double()) / frame_norms(difference.double())).abs().max() < 1e-6
    factor = parallel / onto  # one number in each frame
    spread = factor - factor[:, :1, :, :1, :1]
    assert (spread.abs() < 1e-4 * factor.abs().clamp(min=1)).all()


def test_projection_onto_nothing_is_all_orthogonal():
    difference = torch.randn(SHAPE)
    parallel, orthogonal = project(difference, torch.zeros(SHAPE))
    assert torch.equal(orthogonal, difference) and not parallel.any()


@pytest.mark.parametrize("limit", [27.0, 3.0, 1e4])
def test_no_frame_is_longer_than_the_limit_and_short_ones_are_left_alone(limit):
    _, difference = pair()
    limited = limit_norm(difference, limit)
    before, after = frame_norms(difference), frame_norms(limited)
    assert (after <= limit * (1 + 1e-6)).all()
    assert (after >= torch.minimum(before, torch.full_like(before, limit)) * (1 - 1e-5)).all()
    kept = (before <= limit)[:, None, :, None, None].expand_as(difference)
    assert torch.equal(limited[kept], difference[kept])


def test_the_limit_is_per_frame_and_not_per_clip():
    """One wild frame must not shrink the others."""
    cond, null = torch.randn(2, *SHAPE)
    calm, _ = apg(cond, null, 5.0, threshold=10.0, relative=False)
    null[:, :, 1] *= 100
    wild, _ = apg(cond, null, 5.0, threshold=10.0, relative=False)
    assert torch.equal(calm[:, :, [0, 2]], wild[:, :, [0, 2]])
    assert not torch.equal(calm[:, :, 1], wild[:, :, 1])


def test_a_relative_threshold_follows_the_scale_of_the_latents():
    cond, null = pair()
    guided, _ = apg(cond, null, 5.0, threshold=0.5)
    torch.testing.assert_close(apg(10 * cond, 10 * null, 5.0, threshold=0.5)[0], 10 * guided, atol=1e-3, rtol=1e-4)
    added = frame_norms(apg(cond, null, 2.0, eta=1.0, threshold=0.5)[0] - cond)
    assert (added <= 0.5 * frame_norms(cond) * (1 + 1e-5)).all()


def test_eta_zero_adds_nothing_along_the_prediction():
    cond, null = pair()
    guided, _ = apg(cond, null, 5.0)
    dots = ((guided - cond).double() * cond.double()).sum((1, 3, 4))
    assert (dots / frame_norms(cond.double()) ** 2).abs().max() < 1e-4


def test_momentum_is_kept_in_the_runs_memory_only():
    guider, (cond, null) = APG(scale=3.0, eta=1.0, threshold=float("inf"), momentum=-0.5), pair()
    memory = {}
    first = guider(cond, null, cond, 1.0, memory)
    second = guider(cond, null, cond, 0.9, memory)
    torch.testing.assert_close(first, cfg(cond, null, 3.0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second, cond + 2 * 0.5 * (cond - null), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guider(cond, null, cond, 1.0, {}), first)
    still = {}
    APG()(cond, null, cond, 1.0, still)
    assert not still


def test_on_clean_latents_the_line_is_the_same_and_the_projection_is_not():
    cond, null = torch.randn(2, *SHAPE)
    x = torch.randn(SHAPE)
    whole = {"scale": 4.0, "eta": 1.0, "threshold": float("inf")}
    clean = APG(**whole, on="clean")(cond, null, x, 0.6, {})
    torch.testing.assert_close(clean, cfg(cond, null, 4.0), atol=1e-4, rtol=1e-4)
    damped = APG(scale=4.0, on="clean")(cond, null, x, 0.6, {})
    assert not torch.allclose(damped, APG(scale=4.0)(cond, null, x, 0.6, {}), atol=1e-2)
    added = ((x - 0.6 * damped) - (x - 0.6 * cond)).double()
    dots = (added * (x - 0.6 * cond).double()).sum((1, 3, 4))
    assert dots.abs().max() < 1e-2


def test_cfg_guider_and_bad_settings():
    cond, null = pair()
    assert torch.equal(CFG(4.0)(cond, null, cond, 0.5, {}), cfg(cond, null, 4.0))
    with pytest.raises(BadInput, match="'velocity' or 'clean'"):
        APG(on="noise")
    with pytest.raises(BadInput, match="threshold"):
        APG(threshold=0.0)
