"""The fused norm and SiLU against their definition, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from longtake.tokenizers.channel_norm import ChannelNorm


def definition(x, gain, silu):
    y = x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) * x.shape[1] ** 0.5 * gain
    return F.silu(y) if silu else y


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4, 2), (2, 5, 4, 3)])
def test_values_and_gradients_follow_the_definition(silu, shape):
    norm = ChannelNorm(5, dims=len(shape) - 2, silu=silu).double()
    torch.nn.init.normal_(norm.gamma)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(norm(x), definition(x, norm.gamma, silu))
    ours = torch.autograd.grad((norm(x) * weight).sum(), (x, norm.gamma))
    theirs = torch.autograd.grad((definition(x, norm.gamma, silu) * weight).sum(), (x, norm.gamma))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_zero_pixels_stay_zero_and_have_finite_gradients():
    norm, x = ChannelNorm(4), torch.zeros(1, 4, 1, 2, 2, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert x.grad.isfinite().all()


def test_memory_format_and_type_are_kept():
    x = torch.randn(2, 8, 3, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    assert ChannelNorm(8)(x).is_contiguous(memory_format=torch.channels_last_3d)
    low = ChannelNorm(8)(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), ChannelNorm(8)(x.bfloat16().float()), rtol=2**-8, atol=1e-6)


def test_the_backward_pass_keeps_the_input_and_one_number_per_pixel():
    kept = []
    x = torch.randn(2, 8, 3, 4, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        ChannelNorm(8)(x)
    assert sum(kept) == x.numel() + x.numel() // 8 + 8
