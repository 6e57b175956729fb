"""From an image to tokens, and a vertical edge: from the tokens of one scale to those of the next coarser one.

A vertical edge is a 3x3 convolution of stride 2 without bias over the map whose closed tokens are zero, divided by the
share of its window that is open, but by 1/4 at least, so that activations do not shrink with sparsity:

    P(F g) / max(mean of g over the window, 1/4)

Windows reach over the border of the map; what lies there counts neither as open nor as closed. A window without open
tokens receives nothing.

Gathered execution goes through the nine taps of the convolution: tap k multiplies those open tokens that it meets and
adds to the windows that they are in. An open token costs C_in C_out for each window that holds it (one, two or four of
them), a closed one nothing, so the cost is linear in the gates and 9 C_in C_out for a full window.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.layers.linear import linear
from longtake.recognition.token_routing.block import Size

LEAST = 0.25
"""Share of a window by which its sum is divided at least."""


class ImageEmbedding(nn.Module):
    """Overlapping patches: a 7x7 convolution of stride 4 and a norm; (B, 3, H, W) -> (B, N, C) and the map's size."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 7, stride=4, padding=3)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> tuple[Tensor, Size]:
        """(B, channels, H, W) -> tokens (B, N, C) and (ceil(H/4), ceil(W/4))."""
        plane = self.convolution(images)
        return self.norm(plane.flatten(2).transpose(1, 2)), (plane.shape[2], plane.shape[3])

    def macs(self, size: Size) -> int:
        """Of a map of this size."""
        return size[0] * size[1] * self.convolution.weight.numel()


class VerticalEdge(nn.Module):
    """The edge P from a node to the one below it. Args: width, below: features of a token here and there."""

    def __init__(self, width: int, below: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, below, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, size: Size, gates: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Masked.

        Args:
            x: tokens (B, N, C). size: of their map. gates: (B, N); None = all open.

        Returns:
            (B, N', C') and which of them received anything, bool (B, N'), None = all.
        """
        plane = x.transpose(1, 2).unflatten(2, size)
        if gates is None:
            return self.convolution(plane).flatten(2).transpose(1, 2), None
        open_share = window_mean(gates, size)
        made = self.convolution(plane * gates.unflatten(1, size)[:, None]).flatten(2).transpose(1, 2)
        return made / open_share.clamp_min(LEAST)[..., None], open_share > 0

    def gathered(self, x: Tensor, size: Size, gates: Tensor) -> tuple[Tensor, Tensor]:
        """The same function, computed for open tokens alone."""
        open_share, active = window_mean(gates, size), gates > 0
        made = x.new_zeros(open_share.numel(), self.convolution.out_channels)
        weights = self.convolution.weight.flatten(2).permute(2, 0, 1).contiguous()  # (9, C', C)
        tokens, own = x.flatten(0, 1), gates.flatten()
        for weight, (here, there) in zip(weights, taps(size), strict=True):
            here, there = here.to(x.device), there.to(x.device)
            sample, which = active.index_select(1, here).nonzero(as_tuple=True)
            if len(sample):
                places = here[which] + sample * gates.shape[1]
                sent = linear(tokens.index_select(0, places) * own[places][:, None], weight)
                made.index_add_(0, there[which] + sample * open_share.shape[1], sent.to(made.dtype))
        return made.view(*open_share.shape, -1) / open_share.clamp_min(LEAST)[..., None], open_share > 0

    def macs(self, size: Size, gates: Tensor) -> Tensor:
        """Multiply-accumulates with gates (B, N) -> (B,)."""
        return (gates @ reach(size).to(gates)) * self._pair

    def full(self, size: Size) -> int:
        """Of a sample whose tokens all take it."""
        return int(reach(size).sum()) * self._pair

    @property
    def _pair(self) -> int:
        """Of one token in one window."""
        return self.convolution.in_channels * self.convolution.out_channels


def window_mean(gates: Tensor, size: Size) -> Tensor:
    """Mean of gates (B, N) over the windows of a vertical edge, what lies outside of the map left out: (B, N')."""
    plane = gates.unflatten(1, size)[:, None]
    return F.avg_pool2d(plane, 3, 2, padding=1, count_include_pad=False).flatten(1)


def below(size: Size) -> Size:
    """Size of the map that a vertical edge makes."""
    return -(-size[0] // 2), -(-size[1] // 2)


@cache
def taps(size: Size) -> tuple[tuple[Tensor, Tensor], ...]:
    """For each tap of the 3x3 window, row by row: tokens that it meets, and the windows in which it does; both (n,)."""
    rows, columns = size
    high, wide = below(size)
    there = torch.arange(high * wide)
    y, x = 2 * (there // wide), 2 * (there % wide)
    found = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            inside = (y + down >= 0) & (y + down < rows) & (x + right >= 0) & (x + right < columns)
            found.append((((y + down) * columns + x + right)[inside], there[inside]))
    return tuple(found)


@cache
def reach(size: Size) -> Tensor:
    """In how many windows each token is: float32 (N,)."""
    return torch.bincount(torch.cat([here for here, _ in taps(size)]), minlength=size[0] * size[1]).float()
