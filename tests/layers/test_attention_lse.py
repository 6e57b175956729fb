"""Attention with the log-sum-exp of its scores, against plain formulas in float64."""

import pytest
import torch

from longtake.errors import BadInput
from longtake.layers import attention_lse
from longtake.layers.attention_lse import attend_lse, lse_kernel, merge

CPU = pytest.mark.parametrize("kernel", ["flash-cpu", "chunked"])
GPU = ["flash", "efficient", "cudnn", "chunked"]


def drawn(dtype=torch.float32, batch=2, heads=4, queries=37, keys=53, width=16, groups=None, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    groups = heads if groups is None else groups
    shapes = (batch, heads, queries, width), (batch, groups, keys, width), (batch, groups, keys, width)
    return [(2 * torch.randn(shape, generator=generator)).to(device, dtype) for shape in shapes]


def oracle(q, k, v, mask=None, scale=None):
    """Every score at once in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    lse = scores.logsumexp(-1)
    return torch.einsum("bhnm,bhmd->bhnd", (scores - lse[..., None]).exp().nan_to_num(0), v), lse


def masks(q, k):
    """None, and bools and floats of several shapes; the last two leave some rows without any key."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.rand(*q.shape[:3], k.shape[2], generator=generator).to(q.device) < 0.5
    bias = torch.randn(q.shape[2], k.shape[2], generator=generator).to(q.device)
    whole[:, 1:, 3:7] = False
    padded = (torch.arange(k.shape[2]) < 40).expand(q.shape[0], 1, 1, -1).to(q.device)
    return {"none": None, "padding": padded, "bias": bias, "some": whole, "holes": bias.masked_fill(~whole, -torch.inf)}


@CPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["none", "padding", "bias", "some", "holes"])
def test_both_results_are_those_of_float64(kernel, dtype, name, monkeypatch):
    monkeypatch.setattr(attention_lse, "SCORES", 5 * 2 * 4 * 53)  # chunks of five queries, the last of two
    q, k, v = drawn(dtype)
    mask = masks(q, k)[name]
    out, lse = attend_lse(q, k, v, mask, 0.3, kernel=kernel)
    exact, exact_lse = oracle(q, k, v, mask, 0.3)
    assert out.dtype == dtype and lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert lse.shape == q.shape[:3]
    close = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(out.double(), exact, atol=close * 4, rtol=0)
    torch.testing.assert_close(lse.double(), exact_lse, atol=close, rtol=1e-6)
    dead = exact_lse == -torch.inf
    assert dead.any() == (name in ("some", "holes"))
    assert (lse[dead] == -torch.inf).all() and (out[dead] == 0).all() and not out.isnan().any()


@CPU
def test_heads_of_keys_may_serve_several_of_the_queries(kernel):
    q, k, v = drawn(groups=2)
    for found, exact in zip(attend_lse(q, k, v, kernel=kernel), oracle(q, k, v), strict=True):
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)
    with pytest.raises(BadInput, match="4 heads of queries, 3 of keys"):
        attend_lse(q, *drawn(groups=3)[1:])


def test_values_of_another_width_and_tensors_of_any_strides():
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in drawn())
    for values in (v, v[..., :5], v.transpose(2, 3).contiguous().transpose(2, 3)):
        for found, exact in zip(attend_lse(q, k, values), oracle(q, k, values), strict=True):
            torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [None, "flash-cpu", "chunked"])
def test_no_keys_and_no_queries(kernel):
    q, k, v = drawn()
    out, lse = attend_lse(q, k[:, :, :0], v[:, :, :0], kernel=kernel)
    assert out.shape == q.shape and (out == 0).all() and (lse == -torch.inf).all()
    out, lse = attend_lse(q[:, :, :0], k, v, kernel=kernel)
    assert out.shape == (2, 4, 0, 16) and lse.shape == (2, 4, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at", [0, 1, 20, 53])
def test_parts_of_the_keys_merge_to_the_whole(dtype, at):
    q, k, v = drawn(dtype)
    mask = masks(q, k)["some"]
    parts = [attend_lse(q, k[:, :, s], v[:, :, s], mask[..., s]) for s in (slice(at), slice(at, None))]
    out, lse = merge(*parts[0], *parts[1])
    exact, exact_lse = oracle(q, k, v, mask)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0)
    torch.testing.assert_close(lse.double(), exact_lse, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)
    assert not out.isnan().any() and not lse.isnan().any()


def test_merging_goes_in_any_order_and_through_huge_scores():
    q, k, v = drawn()
    parts = [attend_lse(30 * q, k[:, :, i::3], v[:, :, i::3]) for i in range(3)]
    ones = merge(*merge(*parts[0], *parts[1]), *parts[2])
    others = merge(*parts[2], *merge(*parts[1], *parts[0]))
    for one, other, exact in zip(ones, others, oracle(30 * q, k, v), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(one.double(), exact, atol=3e-4, rtol=1e-5)  # scores of hundreds in float32


@CPU
@pytest.mark.parametrize("name", ["none", "some", "holes"])
def test_gradients_of_both_results(kernel, name, monkeypatch):
    """Through a merge of two halves too, whose rows without a key have a gradient of 0."""
    monkeypatch.setattr(attention_lse, "SCORES", 5 * 2 * 4 * 53)
    given = [x.requires_grad_() for x in drawn(torch.float64)]
    mask, to_out, to_lse = masks(*given[:2])[name], *(torch.randn(2, 4, 37, n, dtype=torch.float64) for n in (16, 1))

    def loss(out, lse):
        return (out * to_out).sum() + (lse.masked_fill(lse == -torch.inf, 0)[..., None] * to_lse).sum()

    def merged(q, k, v):
        halves = (slice(20), slice(20, None))
        cut = [None if mask is None else mask[..., s] for s in halves]
        first, second = (
            attend_lse(q, k[:, :, s], v[:, :, s], m, kernel=kernel) for s, m in zip(halves, cut, strict=True)
        )
        return merge(*first, *second)

    expected = torch.autograd.grad(loss(*plain(*given, mask)), given)
    for made in (attend_lse(*given, mask, kernel=kernel), merged(*given)):
        for found, exact in zip(torch.autograd.grad(loss(*made), given), expected, strict=True):
            torch.testing.assert_close(found, exact, atol=1e-9, rtol=1e-9)


def plain(q, k, v, mask):
    """By autograd through every score, rows without a key left out of it."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if mask is None:
        return scores.softmax(-1) @ v, scores.logsumexp(-1)
    bias = torch.zeros_like(scores).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
    dead = (bias == -torch.inf).all(-1).expand(scores.shape[:3])
    scores = scores + bias.masked_fill(dead[..., None], 0.0)
    out, lse = scores.softmax(-1) @ v, scores.logsumexp(-1)
    return out.masked_fill(dead[..., None], 0.0), lse.masked_fill(dead, -torch.inf)


def test_a_mask_has_no_gradient_and_says_so():
    q, k, v = drawn()
    mask = torch.zeros(37, 53, requires_grad=True)
    with pytest.raises(BadInput, match="mask of an attention"):
        attend_lse(q, k, v, mask)
    with torch.no_grad():
        attend_lse(q, k, v, mask)


def test_memory_of_the_explicit_kernel_does_not_grow_with_the_queries(monkeypatch):
    """No tensor of more than a chunk's scores is made, nor of more than the inputs' numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                self.most = max(self.most, made.numel())
            return made

    q, k, v = drawn(batch=1, heads=1, queries=4096, keys=4096, width=8)
    monkeypatch.setattr(attention_lse, "SCORES", 16 * 4096)
    with Largest() as seen:
        attend_lse(q, k, v, kernel="chunked")
    assert seen.most == 16 * 4096


def test_the_kernel_is_chosen_by_what_is_given():
    q, k, v = drawn()
    assert lse_kernel(q, k, v) == lse_kernel(q, k, v, masks(q, k)["some"]) == "flash-cpu"
    assert lse_kernel(q, k, v[..., :5]) == lse_kernel(q, k[:, :, :0], v[:, :, :0]) == "chunked"
    with pytest.raises(BadInput, match=r"'flush'.*flash-cpu"):
        attend_lse(q, k, v, kernel="flush")


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", GPU)
@pytest.mark.parametrize("name", ["none", "padding", "some"])
def test_kernels_of_a_gpu(kernel, name):
    if kernel == "flash" and name != "none":
        pytest.skip("it takes no mask")
    q, k, v = drawn(torch.bfloat16, width=64, device="cuda")
    mask = masks(q, k)[name]
    for found, exact in zip(attend_lse(q, k, v, mask, kernel=kernel), oracle(q, k, v, mask), strict=True):
        torch.testing.assert_close(found.double(), exact, atol=0.1, rtol=0.02)
