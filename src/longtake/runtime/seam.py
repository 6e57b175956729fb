"""The one point through which every attention of our networks passes."""

from typing import Literal, Protocol, overload

from torch import Tensor, nn

from longtake.layers.attention import attend as dense
from longtake.layers.attention_lse import attend_lse as dense_lse
from longtake.layers.attention_lse import lse_kernel
from longtake.runtime.nouns import AttnCall, Site, StepInfo


def attend(site: Site, call: AttnCall) -> Tensor:
    """Compute one attention densely. Returns (B, H, S, D), in the layout of call.q."""
    return dense(call.q, call.k, call.v, call.mask, scale=call.scale)


def attend_lse(call: AttnCall) -> tuple[Tensor, Tensor]:
    """Compute one attention densely, with the log-sum-exp of its scores: (B, H, S, D) and float32 (B, H, S)."""
    return dense_lse(call.q, call.k, call.v, call.mask, call.scale)


def kernel_of(call: AttnCall) -> str:
    """Name of the kernel by which `attend_lse` computes a call."""
    return lse_kernel(call.q, call.k, call.v, call.mask)


class Attend(Protocol):
    """What computes an attention: the dense kernel, or the methods inside of the one that asks.

    Asked for lse=True it gives (output, natural log-sum-exp of the scores) instead of the output alone, see
    `longtake.layers.attention_lse`, whose `merge` joins attentions over parts of the keys.
    """

    @overload
    def __call__(self, call: AttnCall, lse: Literal[False] = False) -> Tensor: ...
    @overload
    def __call__(self, call: AttnCall, lse: Literal[True]) -> tuple[Tensor, Tensor]: ...


class AttendPoint(nn.Module):
    """A parameterless module at each attention, so that a method can replace the attention by an ordinary module hook.

    Args:
        site: where in the model this attention is.
    """

    def __init__(self, site: Site):
        super().__init__()
        self.site = site

    def forward(
        self, call: AttnCall, info: StepInfo | None = None, lse: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the attention output (B, H, S, D), and with `lse` the log-sum-exp of its scores (B, H, S) too.

        `info` is None outside a sampling run, in training for example.
        """
        return attend_lse(call) if lse else attend(self.site, call)

    def extra_repr(self) -> str:
        return f"{self.site.kind}, layer {self.site.layer} of {self.site.n_layers}"
