"""The choices that make our layers fast on a CPU, each against what it replaces.

attention   two plain matrix products against torch's fused kernel, and the error of both against float64
norm        RMSNorm and rotary turn as one autograd node against plain operations, and the bytes kept for the backward
gelu        exact GELU against its tanh form
product     a linear layer in float32 by oneDNN against torch's own
with gelu   a linear layer and its tanh GELU in one pass against two, forward alone

The first three and the last in bf16, all but the last forward and backward.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.layers.attention import attend
from longtake.layers.linear import Linear, linear, linear_gelu
from longtake.layers.rotary import norm_rotate, rotary_table
from timing import arguments, compare, save

BATCH, HEADS, GRID, WORDS, HEAD_DIM = 8, 4, (5, 8, 8), 20, 64
TOKENS = GRID[0] * GRID[1] * GRID[2] + WORDS


def step(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """Forward and backward of a function, with respect to those of its inputs that want gradients."""
    wanted = [x for x in inputs if x.requires_grad]
    grad = torch.randn_like(function(*inputs).detach())

    def run() -> None:
        torch.autograd.grad(function(*inputs), wanted, grad)

    return run


def queries(dtype: torch.dtype) -> list[Tensor]:
    """q, k (of unit mean square, as after RMSNorm) and v, (B, H, N, D) views into (B, N, H, D) memory."""
    q, k, v = torch.randn(3, BATCH, TOKENS, HEADS, HEAD_DIM)
    return [x.to(dtype).transpose(1, 2) for x in (F.rms_norm(q, (HEAD_DIM,)), F.rms_norm(k, (HEAD_DIM,)), v)]


def error(function: Callable[..., Tensor], mask: Tensor) -> float:
    """Relative RMS error of an attention in bf16 against float64, rounding of its inputs included."""
    torch.manual_seed(1)
    exact = queries(torch.float64)
    reference = F.scaled_dot_product_attention(*exact, attn_mask=mask)
    out = function(*(x.bfloat16() for x in exact), mask)
    return ((out.double() - reference).norm() / reference.norm()).item()


def plain_norm_rotate(x: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """The same as `norm_rotate`, left to autograd."""
    y = F.rms_norm(x.float(), (HEAD_DIM,), eps=1e-6) * weight
    pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, None, None]).flatten(-2).to(x.dtype)


def kept_bytes(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Bytes of distinct storages that autograd keeps for the backward, the inputs' own left out."""
    own = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = function(*inputs)
    del out
    return sum(kept.values())


def main() -> None:
    chosen = arguments(__doc__)
    torch.manual_seed(0)
    mask = (torch.arange(TOKENS) < TOKENS - 6).expand(BATCH, 1, 1, -1)
    results = {}

    q, k, v = (x.requires_grad_() for x in queries(torch.bfloat16))
    fused = F.scaled_dot_product_attention
    results["attention"] = compare(
        {"fused kernel": step(fused, q, k, v, mask), "longtake": step(attend, q, k, v, mask)}, repeats=chosen.repeats
    )
    results["attention error"] = {"fused kernel": error(fused, mask), "longtake": error(attend, mask)}

    x = torch.randn(BATCH, TOKENS, 2, HEADS, HEAD_DIM, dtype=torch.bfloat16, requires_grad=True)
    weight, table = torch.ones(1, 2, 1, HEAD_DIM, requires_grad=True), rotary_table(GRID, HEAD_DIM, extra=WORDS)
    assert (norm_rotate(x, weight, table) - plain_norm_rotate(x, weight, table)).abs().max() < 0.05
    inputs = (x, weight, table)
    results["norm"] = compare(
        {"plain": step(plain_norm_rotate, *inputs), "longtake": step(norm_rotate, *inputs)}, repeats=chosen.repeats
    )
    results["norm bytes"] = {
        n: kept_bytes(f, *inputs) for n, f in (("plain", plain_norm_rotate), ("longtake", norm_rotate))
    }

    wide = torch.randn(BATCH * TOKENS, 4 * HEADS * HEAD_DIM, dtype=torch.bfloat16, requires_grad=True)
    results["gelu"] = compare(
        {"tanh": step(lambda y: F.gelu(y, approximate="tanh"), wide), "longtake": step(F.gelu, wide)},
        repeats=chosen.repeats,
    )
    x = torch.randn(BATCH * TOKENS, HEADS * HEAD_DIM, requires_grad=True)
    layer = Linear(HEADS * HEAD_DIM, 4 * HEADS * HEAD_DIM)
    own, theirs = (step(f, x, layer.weight, layer.bias) for f in (linear, F.linear))
    torch.testing.assert_close(linear(x, layer.weight, layer.bias), F.linear(x, layer.weight, layer.bias))
    results["product"] = compare({"torch": theirs, "longtake": own}, repeats=chosen.repeats)
    with torch.no_grad():
        layer, x = layer.bfloat16(), x.bfloat16()
        results["with gelu"] = compare(
            {
                "two passes": lambda: F.gelu(layer(x), approximate="tanh"),
                "longtake": lambda: linear_gelu(layer, x, "tanh"),
            },
            repeats=chosen.repeats,
        )
    for name, result in results.items():
        print(f"\n{name}\n{result}")
    setting = {"batch": BATCH, "heads": HEADS, "tokens": TOKENS, "head_dim": HEAD_DIM}
    print("\nwritten:", save("layers", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()
