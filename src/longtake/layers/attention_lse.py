"""Dense attention that also gives the log-sum-exp of its scores, by which attentions over parts of the keys are joined.

With scores s_j = scale * q k_j + mask_j over the keys j,

    out = sum_j exp(s_j - lse) v_j,     lse = log sum_j exp(s_j)     (natural logarithm)

and two attentions of the same queries over two sets of keys make the attention over both (`merge`; the online softmax of
arXiv 1805.02867):

    lse = log(exp(lse_1) + exp(lse_2)),     out = exp(lse_1 - lse) out_1 + exp(lse_2 - lse) out_2

A query that sees no key has out = 0 and lse = -inf. Kernels are torch's own, where they give the log-sum-exp, and an
explicit one in chunks of queries, whose memory does not grow with their number. Gradients of both results are computed in
such chunks whatever made them. Kernels of a GPU have tests that have not run yet.

Time as a ratio to torch's attention without the log-sum-exp (benchmarks/attention_lse.py: medians on one busy CPU thread,
512 and 2,048 tokens, float32 and bfloat16): 0.94 to 1.03 with torch's kernel for CPUs, 1.02 to 1.52 for two merged halves
of the keys, 1.56 to 2.32 in chunks.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from longtake.errors import BadInput

SCORES = 2**22
"""Scores of a chunk, B*H*rows*M, that are held at a time (16 MiB in float32); a row of queries is the least."""
Scaled = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], tuple[Tensor, Tensor]]


def attend_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    *,
    kernel: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention and the log-sum-exp of its scores.

    Args:
        q: (B, H, N, D). k: (B, G, M, D), v: (B, G, M, E), where G divides H and each of their heads serves H / G of the
            queries'. M may be 0.
        mask: broadcastable to (B, H, N, M); bool, True = may be attended, or a float that is added to the scores.
        scale: factor on q @ k^T; None = 1/sqrt(D).
        kernel: one of KERNELS; None = `lse_kernel`.

    Returns:
        out (B, H, N, E) in the dtype of q, and lse (B, H, N) in float32, of float64 inputs in float64.

    Raises:
        BadInput: heads that do not divide, an unknown kernel, or a mask that wants a gradient, which is not computed.
    """
    heads, groups = q.shape[1], k.shape[1]
    if groups != v.shape[1] or heads % max(groups, 1):
        raise BadInput(
            f"{heads} heads of queries, {groups} of keys and {v.shape[1]} of values; the first must be a multiple"
        )
    if mask is not None and mask.requires_grad and torch.is_grad_enabled():
        raise BadInput("the mask of an attention with log-sum-exp wants a gradient, and gets none; detach it")
    if groups != heads:
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    if kernel is None:
        kernel = lse_kernel(q, k, v, mask)
    if kernel not in KERNELS:
        raise BadInput(f"no attention kernel is called '{kernel}'; use one of {', '.join(KERNELS)}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return _Differentiable.apply(q, k, v, mask, scale, kernel)
    return _forward(q, k, v, mask, scale, kernel)


def lse_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> str:
    """Which of KERNELS `attend_lse` takes: the first that can, of "flash-cpu" on a CPU, and of "flash" (no mask) and
    "efficient" on a GPU; else "chunked". Arguments as there, with as many heads everywhere."""
    if 0 in q.shape or 0 in k.shape or q.dtype != k.dtype or q.dtype != v.dtype or q.shape[-1] != v.shape[-1]:
        return "chunked"
    if q.device.type == "cpu":
        return "flash-cpu"
    if q.device.type == "cuda":
        from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

        asked = SDPAParams(q, k, v, None, 0.0, False, False)
        if mask is None and q.shape[-1] % 8 == 0 and can_use_flash_attention(asked):
            return "flash"
        if can_use_efficient_attention(asked):
            return "efficient"
    return "chunked"


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """The attention over two disjoint sets of keys from those over each.

    Args:
        out, other: (B, H, N, E). lse, other_lse: (B, H, N).

    Returns:
        out in the dtype of the first, summed in float32 or wider, and lse. Rows that see nothing in both stay 0 and -inf.
    """
    largest = torch.maximum(lse, other_lse).detach()
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    weights = [(one - largest).exp() for one in (lse, other_lse)]
    total = weights[0] + weights[1]
    dead = total == 0
    total = total.masked_fill(dead, 1.0)
    joined = (out * weights[0][..., None] + other * weights[1][..., None]) / total[..., None]
    return joined.to(out.dtype), (largest + total.log()).masked_fill(dead, -torch.inf)


class _Differentiable(torch.autograd.Function):
    """Any kernel forward; backward with P = exp(S - lse) made again in chunks of queries.

    With D = sum_e dout * out: dS = P * (dout v^T - D + dlse), dq = scale dS k, dk = scale dS^T q, dv = P^T dout.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, kernel: str
    ) -> tuple[Tensor, Tensor]:
        out, lse = _forward(q, k, v, mask, scale, kernel)
        ctx.save_for_backward(q, k, v, mask, out, lse)
        ctx.scale = scale
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, out, lse = ctx.saved_tensors
        wide = torch.promote_types(q.dtype, torch.float32)
        keys, values = k.to(wide), v.to(wide)
        dq, dk, dv = torch.empty_like(q, dtype=wide), torch.zeros_like(keys), torch.zeros_like(values)
        for rows in _chunks(q, k):
            queries, given = q[:, :, rows].to(wide), dout[:, :, rows].to(wide)
            share = _shares(_scores(queries, keys, _rows(mask, rows), ctx.scale), lse[:, :, rows].to(wide))
            dv += share.mT @ given
            inner = (given * out[:, :, rows]).sum(-1, keepdim=True) - dlse[:, :, rows, None]
            pull = share * (given @ values.mT - inner) * ctx.scale
            dq[:, :, rows] = pull @ keys
            dk += pull.mT @ queries
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, kernel: str) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)
    if 0 in q.shape or 0 in k.shape:  # no key to see, or nobody to see it
        kernel = "chunked"
    out, lse = KERNELS[kernel](q, k, v, mask, scale)
    lse = lse.reshape(*q.shape[:2], -1)[..., : q.shape[2]].to(wide)  # some kernels fill up to a multiple of rows
    if mask is not None:
        dead = ~mask.any(-1) if mask.dtype == torch.bool else (mask == -torch.inf).all(-1)
        out, lse = out.masked_fill(dead[..., None], 0.0), lse.masked_fill(dead, -torch.inf)
    return out, lse


def _chunked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)
    keys, values = k.to(wide), v.to(wide)
    out, lse = q.new_zeros(*q.shape[:-1], v.shape[-1]), q.new_full(q.shape[:-1], -torch.inf, dtype=wide)
    for rows in _chunks(q, k) if k.shape[2] else ():
        scores = _scores(q[:, :, rows].to(wide), keys, _rows(mask, rows), scale)
        lse[:, :, rows] = scores.logsumexp(-1)
        out[:, :, rows] = (_shares(scores, lse[:, :, rows]) @ values).to(q.dtype)
    return out, lse


def _chunks(q: Tensor, k: Tensor) -> list[slice]:
    step = max(1, SCORES // max(q.shape[0] * q.shape[1] * k.shape[2], 1))
    return [slice(at, at + step) for at in range(0, q.shape[2], step)]


def _rows(mask: Tensor | None, rows: slice) -> Tensor | None:
    return mask if mask is None or mask.ndim < 2 or mask.shape[-2] == 1 else mask[..., rows, :]


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = (q * scale) @ k.mT
    if mask is None:
        return scores
    return scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)


def _shares(scores: Tensor, lse: Tensor) -> Tensor:
    """exp(S - lse), 0 in rows that see nothing; of scores that are not needed any more."""
    return scores.sub_(lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp_()


def _bias(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
    """A mask as torch's kernels take it: added to the scores, (B, H, N, M) in the dtype of q."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
    return mask.to(q.dtype).expand(*q.shape[:3], k.shape[2])


def _flash_cpu(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    made = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *_dense_rows(q, k, v), attn_mask=_bias(q, k, mask), scale=scale
    )
    return made[0], made[1]


def _flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    if mask is not None:
        raise BadInput("the kernel 'flash' takes no mask; use 'efficient' or 'chunked'")
    made = torch.ops.aten._scaled_dot_product_flash_attention(*_dense_rows(q, k, v), scale=scale)
    return made[0], made[1]


def _efficient(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    bias = _bias(q, k, mask)
    if bias is not None:  # its rows must begin at multiples of 16 numbers
        bias = F.pad(bias, (0, -bias.shape[-1] % 16))[..., : bias.shape[-1]]
    made = torch.ops.aten._scaled_dot_product_efficient_attention(*_dense_rows(q, k, v), bias, True, scale=scale)
    return made[0], made[1]


def _cudnn(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    bias = _bias(q, k, mask)
    made = torch.ops.aten._scaled_dot_product_cudnn_attention(*_dense_rows(q, k, v), bias, True, scale=scale)
    return made[0], made[1]


def _dense_rows(*tensors: Tensor) -> list[Tensor]:
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


KERNELS: dict[str, Scaled] = {
    "flash-cpu": _flash_cpu,
    "flash": _flash,
    "efficient": _efficient,
    "cudnn": _cudnn,
    "chunked": _chunked,
}
"""Name -> kernel. "cudnn" is never taken unless it is asked for."""
