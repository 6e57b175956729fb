"""Doubling and convolving in one pass against the two operations."""

import pytest
import torch
import torch.nn.functional as F

from longtake.tokenizers.upsampling import double_and_convolve


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 1), (3, 3, 2, 7)])
def test_values_and_gradients_equal_those_of_two_operations(shape):
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, (4, 3, 3, 3), (4,))]
    x, weight, bias = inputs
    large = F.interpolate(x, scale_factor=2.0, mode="nearest-exact")
    expected = F.conv2d(large, weight, bias, padding=1)
    out = double_and_convolve(x, weight, bias)
    torch.testing.assert_close(out, expected)
    factor = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((out * factor).sum(), inputs),
        torch.autograd.grad((expected * factor).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_no_bias_and_channels_last():
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(6, 3, 3, 3)
    out = double_and_convolve(x.contiguous(memory_format=torch.channels_last), weight, None)
    assert out.is_contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest-exact"), weight, padding=1)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
