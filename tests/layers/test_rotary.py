"""Rotary positions: the split of a head, relative distances, and the fused norm-and-turn against its definition."""

import pytest
import torch
from hypothesis import given, strategies

from longtake.layers.rotary import norm_rotate, rotary_table, split_head


@given(strategies.integers(1, 200).map(lambda n: 2 * n))
def test_the_split_sums_to_the_head_and_turns_whole_pairs(head_dim):
    split = split_head(head_dim)
    assert sum(split) == head_dim
    assert all(part % 2 == 0 and part >= 0 for part in split)


def test_the_split_is_the_one_of_wan():
    assert split_head(128) == (44, 42, 42)
    assert split_head(64) == (24, 20, 20)


def test_an_odd_head_is_refused():
    with pytest.raises(ValueError, match="odd"):
        split_head(15)


def test_table_is_the_angle_of_each_axis():
    table = rotary_table((2, 3, 4), 24, extra=2, theta=100.0)
    assert table.shape == (2 * 3 * 4 + 2, 12)
    t, h, w = 1, 2, 3
    token = table[(t * 3 + h) * 4 + w]
    # 24 -> 8, 8, 8: four pairs each
    frequency = 100.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    expected = torch.cat([t * frequency, h * frequency, w * frequency])
    torch.testing.assert_close(torch.view_as_real(token), torch.stack([expected.cos(), expected.sin()], -1).float())
    assert torch.equal(table[-2:], torch.ones(2, 12, dtype=table.dtype))
    assert torch.equal(table[0], torch.ones(12, dtype=table.dtype))


def reference(x, weight, table, eps=1e-6):
    """Norm, gain, then each pair as a 2x2 rotation."""
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    if table is None:
        return y
    cos, sin = table.real[:, None, None], table.imag[:, None, None]
    even, odd = y[..., 0::2], y[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("per_token", [True, False])
def test_norm_rotate_equals_its_definition_in_value_and_gradient(turned, per_token):
    table = rotary_table((1, 2, 3), 12, extra=1).to(torch.complex128) if turned else None
    x = torch.randn(2, 7, 2, 3, 12, dtype=torch.float64)
    weight = torch.randn(7 if per_token else 1, 2, 1, 12, dtype=torch.float64)
    target = torch.randn_like(x)
    results = []
    for function in (norm_rotate, reference):
        inputs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = function(*inputs, table)
        results.append([out, *torch.autograd.grad((out * target).sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_norm_rotate_passes_gradcheck():
    x = torch.randn(1, 3, 2, 2, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 1, 6, dtype=torch.float64, requires_grad=True)
    table = rotary_table((1, 1, 3), 6).to(torch.complex128)
    assert torch.autograd.gradcheck(lambda x, w: norm_rotate(x, w, table), (x, weight))


def test_bf16_is_normed_in_float32():
    x = torch.randn(2, 6, 2, 3, 12).bfloat16()
    table = rotary_table((1, 2, 3), 12)
    out = norm_rotate(x, torch.ones(1, 2, 1, 12), table)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, norm_rotate(x.float(), torch.ones(1, 2, 1, 12), table).bfloat16())


def test_products_depend_on_the_distance_only():
    """The same q and k at every place: q.k is the same for all pairs of tokens at one offset."""
    grid = (2, 4, 4)
    q, k = torch.randn(2, 24)
    x = torch.stack([q, k]).view(1, 1, 2, 1, 24).expand(1, 32, 2, 1, 24)
    turned = norm_rotate(x, torch.ones(1, 2, 1, 24), rotary_table(grid, 24))[0, :, :, 0]
    products = (turned[:, 0] @ turned[:, 1].T).view(*grid, *grid)
    torch.testing.assert_close(products[0, 0, 0, 1, 2, 1], products[0, 1, 2, 1, 3, 3], atol=1e-4, rtol=1e-4)
    assert (products[0, 0, 0, 1, 2, 1] - products[0, 0, 0, 1, 1, 2]).abs() > 1e-3  # rows and columns differ
