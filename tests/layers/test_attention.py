"""Dense attention: a plain oracle, masks, and the two ways it is computed."""

import pytest
import torch

from longtake.layers import attention
from longtake.layers.attention import FeedForward, attend


def oracle(q, k, v, mask=None, scale=None):
    scores = q.double() @ k.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v.double()


def inputs(dtype, n=9, m=7, requires_grad=False):
    """q, k, v as views into (B, N, H, D) memory, as the networks make them."""
    lengths = (n, m, m)
    return [torch.randn(2, s, 3, 8).to(dtype).requires_grad_(requires_grad).transpose(1, 2) for s in lengths]


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("masked", [None, "keys", "full"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_equals_the_definition(dtype, tolerance, masked, scale):
    q, k, v = inputs(dtype)
    mask = None
    if masked == "keys":
        mask = torch.arange(7)[None, None, None] < torch.tensor([3, 7])[:, None, None, None]
    elif masked == "full":
        mask = (torch.rand(2, 3, 9, 7) < 0.6) | (torch.arange(7) == 0)
    out = attend(q, k, v, mask, scale=scale)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), oracle(q, k, v, mask, scale), atol=tolerance, rtol=0)


def test_small_and_large_bf16_attentions_agree_in_value_and_gradient(monkeypatch):
    mask = torch.arange(7)[None, None, None] < torch.tensor([3, 7])[:, None, None, None]
    results = []
    for small in (2**23, 0):
        monkeypatch.setattr(attention, "SMALL", small)
        torch.manual_seed(1)
        q, k, v = inputs(torch.bfloat16, requires_grad=True)
        out = attend(q, k, v, mask)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, atol=0.06, rtol=0.06)


def test_masked_keys_do_not_matter():
    q, k, v = inputs(torch.float32)
    mask = torch.arange(7)[None, None, None] < 4
    torch.testing.assert_close(attend(q, k, v, mask.expand(2, -1, -1, -1)), attend(q, k[:, :, :4], v[:, :, :4]))


def test_feed_forward_keeps_the_width_and_is_not_linear():
    ffn = FeedForward(6, 11)
    x = torch.randn(2, 5, 6)
    assert ffn(x).shape == x.shape
    assert sum(p.numel() for p in ffn.parameters()) == 6 * 11 * 2 + 11 + 6
    assert not torch.allclose(ffn(2 * x), 2 * ffn(x), atol=1e-3)
