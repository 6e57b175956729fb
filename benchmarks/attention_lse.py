"""Attention with its log-sum-exp against torch's attention without it: same inputs, forward alone.

attend_lse  the kernel that it takes by itself      chunked  its explicit kernel of flat memory
merged      two halves of the keys, joined again
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.layers.attention_lse import attend_lse, lse_kernel, merge
from timing import arguments, compare, save

BATCH, HEADS, HEAD_DIM = 1, 8, 64
TOKENS = {"float32": (512, 2048), "bfloat16": (512, 2048)}


def merged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Over both halves of the keys."""
    half = k.shape[2] // 2
    return merge(*attend_lse(q, k[:, :, :half], v[:, :, :half]), *attend_lse(q, k[:, :, half:], v[:, :, half:]))[0]


def main() -> None:
    chosen = arguments(__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict = {}
    with torch.no_grad():
        for dtype, lengths in TOKENS.items():
            for tokens in lengths:
                torch.manual_seed(0)
                q, k, v = torch.randn(3, BATCH, HEADS, tokens, HEAD_DIM, device=device).to(getattr(torch, dtype))
                for one in (attend_lse(q, k, v)[0], attend_lse(q, k, v, kernel="chunked")[0], merged(q, k, v)):
                    torch.testing.assert_close(one, F.scaled_dot_product_attention(q, k, v), atol=1e-2, rtol=0)
                name = f"{dtype}, {tokens} tokens, {lse_kernel(q, k, v)}"
                results[name] = compare(
                    {
                        "torch": lambda: F.scaled_dot_product_attention(q, k, v),  # noqa: B023
                        "attend_lse": lambda: attend_lse(q, k, v),  # noqa: B023
                        "chunked": lambda: attend_lse(q, k, v, kernel="chunked"),  # noqa: B023
                        "merged": lambda: merged(q, k, v),  # noqa: B023
                    },
                    repeats=chosen.repeats,
                )
                print(f"\n{name}\n{results[name]}")
    setting = {"batch": BATCH, "heads": HEADS, "head_dim": HEAD_DIM, "device": device}
    print("\nwritten:", save("attention_lse", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()
