"""Adaptive layer norm: values, zero start, and float32 inside."""

import torch
from torch import nn

from longtake.layers.modulation import ModulationProjection, add_gated, linear_fp32, norm_modulate


def test_norm_modulate_is_layer_norm_scaled_and_shifted():
    x, shift, scale = torch.randn(2, 5, 8) * 3 + 1, torch.randn(2, 1, 8), torch.randn(2, 1, 8)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm_modulate(x, shift, scale), normed * (1 + scale) + shift)
    half = norm_modulate(x.bfloat16(), shift, scale)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, norm_modulate(x.bfloat16().float(), shift, scale).bfloat16())


def test_add_gated_keeps_the_dtype_of_the_stream():
    x, gate, update = torch.randn(2, 5, 8), torch.randn(2, 1, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(add_gated(x, gate, update), x + gate * update)
    assert add_gated(x.bfloat16(), gate, update.bfloat16()).dtype == torch.bfloat16
    assert add_gated(x, gate, update.bfloat16()).dtype == torch.float32  # autocast: the stream stays in float32


def test_projection_is_zero_at_the_start_and_float32():
    projection = ModulationProjection(8, 6)
    out = projection(torch.randn(3, 8))
    assert out.shape == (3, 6, 8) and not out.any()
    nn.init.normal_(projection.linear.weight)
    expected = (nn.functional.silu(torch.ones(1, 8)) @ projection.linear.weight.T).view(1, 6, 8)
    torch.testing.assert_close(projection(torch.ones(1, 8)), expected)


def test_linear_fp32_ignores_autocast_and_narrow_weights():
    layer, x = nn.Linear(16, 16), torch.randn(4, 16)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear_fp32(layer, x), exact)
        assert layer(x).dtype == torch.bfloat16
    narrow = layer.to(torch.bfloat16)
    out = linear_fp32(narrow, x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x @ narrow.weight.float().T + narrow.bias.float())
