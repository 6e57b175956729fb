"""A horizontal edge: one transformer block as in PVTv2 (arXiv 2106.13797), for the tokens whose gate is open.

    y = x + A(LN(x)),  B = y + MLP(LN(y)),  F' = g B + (1 - g) F

Queries are the open tokens. Keys and values are all tokens of the map, brought to every r-th row and column by a strided
convolution, so that skipped tokens stay visible. The MLP holds a depth-wise 3x3 convolution, which alone tells tokens
where they are.

Masked execution (training) computes the block for all tokens; gathered execution (inference) only for the open ones. The
two are the same function because a skipped token is to the depth-wise convolution what lies outside the picture is:
zero. Computing the skipped neighbours' hidden features as well would cost nearly the whole MLP where open tokens are
scattered; taking them from earlier columns would need a memory. So the hidden map is multiplied by g in the one and is
laid out with zeros in the other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.layers.attention import attend
from longtake.layers.linear import Linear
from longtake.layers.token_rows import flat_rows, pad_rows, places_of, take
from longtake.recognition.token_routing.costs import EdgeCost

Size = tuple[int, int]
"""Rows and columns of a map."""


class ReducedAttention(nn.Module):
    """Attention of some tokens to a smaller copy of their whole map.

    Args:
        width: features C. heads: which divide them.
        reduction: r, rows and columns of the map that become one key; maps are filled up with zeros to a multiple.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.out = Linear(width, width)
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, u: Tensor, size: Size, active: Tensor | None = None) -> Tensor:
        """Normed tokens (B, N, C) of a map -> (B, N, C); with `active` bool (B, N) only those, (n, C)."""
        keys, values = self._split(self.kv(self._reduced(u, size)), 2)
        if active is None:
            (queries,) = self._split(self.q(u), 1)
            return self.out(attend(queries, keys, values).transpose(1, 2).flatten(2))
        (queries,) = self._split(pad_rows(self.q(take(u, places_of(active))), active), 1)
        made = attend(queries, keys, values).transpose(1, 2).flatten(2)
        return self.out(flat_rows(made, active))

    def cost(self, size: Size) -> EdgeCost:
        """Of q, both products and the output projection for a token; of reduction, k and v once."""
        width, r = self.q.in_features, self.reduction
        keys = -(-size[0] // r) * -(-size[1] // r)
        once = 2 * keys * width**2 + (keys * r**2 * width**2 if r > 1 else 0)
        return EdgeCost(2 * width**2 + 2 * keys * width, once)

    def _reduced(self, u: Tensor, size: Size) -> Tensor:
        """(B, N, C) -> (B, M, C)."""
        if self.reduction == 1:
            return u
        plane = u.transpose(1, 2).unflatten(2, size)
        over = [-n % self.reduction for n in size]
        plane = F.pad(plane, (0, over[1], 0, over[0])) if any(over) else plane
        return self.norm(self.reduce(plane).flatten(2).transpose(1, 2))

    def _split(self, x: Tensor, parts: int) -> list[Tensor]:
        """(B, S, parts C) -> `parts` of (B, H, S, d)."""
        return [part.transpose(1, 2) for part in x.unflatten(-1, (parts, self.heads, -1)).unbind(2)]


class ConvolvedMlp(nn.Module):
    """Linear, depth-wise 3x3 convolution over the map, GELU, Linear; to the convolution, skipped tokens are zero.

    Args:
        width, inner: features of a token, outside and inside.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = Linear(width, inner)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.down = Linear(inner, width)

    def forward(self, u: Tensor, size: Size, gates: Tensor | None) -> Tensor:
        """All tokens (B, N, C), gates (B, N) or None = open -> (B, N, C)."""
        hidden = self.up(u)
        if gates is not None:
            hidden = hidden * gates[..., None]
        return self.down(F.gelu(self._mixed(hidden, size)))

    def gathered(self, u: Tensor, size: Size, gates: Tensor) -> Tensor:
        """Open tokens (n, C) of maps whose gates are (B, N) -> (n, C)."""
        places = places_of(gates > 0)
        hidden = self.up(u) * gates.flatten()[places][:, None]
        plane = (
            hidden.new_zeros(gates.numel(), hidden.shape[-1]).index_copy_(0, places, hidden).unflatten(0, gates.shape)
        )
        return self.down(F.gelu(take(self._mixed(plane, size), places)))

    def cost(self, size: Size) -> EdgeCost:
        """Of both linear layers for a token; of the convolution, which runs over the whole map, once."""
        inner = self.up.out_features
        return EdgeCost(2 * self.up.in_features * inner, 9 * inner * size[0] * size[1])

    def _mixed(self, hidden: Tensor, size: Size) -> Tensor:
        # With channels last neither the map nor what comes back is copied, and oneDNN is at its fastest.
        plane = hidden.unflatten(1, size).permute(0, 3, 1, 2)
        return self.mix(plane).permute(0, 2, 3, 1).flatten(1, 2)


class RoutedTransformer(nn.Module):
    """The edge B from a node to the next one of its scale.

    Args:
        width: features C. heads, reduction: of `ReducedAttention`. ratio: inner features of the MLP per C.
    """

    def __init__(self, width: int, heads: int, reduction: int, ratio: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention = ReducedAttention(width, heads, reduction)
        self.mlp = ConvolvedMlp(width, ratio * width)

    def forward(self, x: Tensor, size: Size, gates: Tensor | None = None) -> Tensor:
        """Masked: tokens (B, N, C), gates (B, N) or None = all open -> (B, N, C)."""
        y = x + self.attention(self.norms[0](x), size)
        y = y + self.mlp(self.norms[1](y), size, gates)
        return y if gates is None else torch.lerp(x, y, gates[..., None])  # exactly x at 0 and y at 1

    def gathered(self, x: Tensor, size: Size, gates: Tensor) -> Tensor:
        """The same function, computed for open tokens alone; samples without any pay nothing."""
        some = (gates > 0).any(1)
        if not some.any():
            return x
        part, own = (x, gates) if some.all() else (x[some], gates[some])
        before = take(part, places_of(own > 0))
        y = before + self.attention(self.norms[0](part), size, own > 0)
        y = y + self.mlp.gathered(self.norms[1](y), size, own)
        places = places_of(gates > 0)
        y = torch.lerp(before, y, gates.flatten()[places][:, None])
        return x.flatten(0, 1).index_copy(0, places, y).view(x.shape)

    def cost(self, size: Size) -> EdgeCost:
        """Multiply-accumulates of a token and once."""
        attention, mlp = self.attention.cost(size), self.mlp.cost(size)
        return EdgeCost(attention.token + mlp.token, attention.once + mlp.once)
