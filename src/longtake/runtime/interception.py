"""Seeing an attention that a network of diffusers computes, without a processor for each of them.

Inside an attention module's forward, calls of torch's `scaled_dot_product_attention` are intercepted: at that point every
family of `longtake.runtime.families` has q, k and v as (B, H, S, D), after norms and rotary positions. Only the "native"
attention backend of diffusers goes that way.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from longtake.errors import Unsupported
from longtake.runtime.nouns import AttnCall, TokenGrid
from longtake.runtime.seam import attend_lse

Dense = Callable[..., Any]
"""(call, lse=False) -> output, or with lse=True (output, log-sum-exp)."""
Seen = Callable[[AttnCall, Dense, int], Tensor]
"""(call, its dense computation, how manieth of this module's forward) -> output (B, H, S, D)."""


class Interception(TorchFunctionMode):
    """While active, hands every attention to `seen`.

    Args:
        grid: box of the video tokens at this site.
        text_at: where text tokens are in the sequence: "none", "first" or "last".
        seen: computes it.
    """

    def __init__(self, grid: TokenGrid, text_at: str, seen: Seen) -> None:
        super().__init__()
        self.grid, self.text_at, self.seen, self.calls = grid, text_at, seen, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        q = given.pop("query")
        k, v, mask = given.pop("key"), given.pop("value"), given.pop("attn_mask", None)
        text = q.shape[2] - self.grid.tokens if self.text_at != "none" else 0
        scale = given.pop("scale", None)
        call = AttnCall(q, k, v, self.grid, text, self.text_at if text else "none", mask, scale)

        def dense(call: AttnCall, lse: bool = False) -> Any:
            if lse:
                if given.get("dropout_p") or given.get("is_causal"):
                    raise Unsupported(
                        "an attention with dropout, or a causal one, gives no log-sum-exp; use another method"
                    )
                return attend_lse(call)
            return F.scaled_dot_product_attention(
                call.q, call.k, call.v, attn_mask=call.mask, scale=call.scale, **given
            )

        number, self.calls = self.calls, self.calls + 1
        return self.seen(call, dense, number)
