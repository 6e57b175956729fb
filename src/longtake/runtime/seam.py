"""The one point through which every attention of our networks passes."""

from torch import Tensor, nn

from longtake.layers.attention import attend as dense
from longtake.runtime.nouns import AttnCall, Site, StepInfo


def attend(site: Site, call: AttnCall) -> Tensor:
    """Compute one attention densely. Returns (B, H, S, D), in the layout of call.q."""
    return dense(call.q, call.k, call.v, call.mask, scale=call.scale)


class AttendPoint(nn.Module):
    """A parameterless module at each attention, so that a method can replace the attention by an ordinary module hook.

    Args:
        site: where in the model this attention is.
    """

    def __init__(self, site: Site):
        super().__init__()
        self.site = site

    def forward(self, call: AttnCall, info: StepInfo | None = None) -> Tensor:
        """Return the attention output (B, H, S, D). `info` is None outside a sampling run, in training for example."""
        return attend(self.site, call)

    def extra_repr(self) -> str:
        return f"{self.site.kind}, layer {self.site.layer} of {self.site.n_layers}"
