"""The feed-forward network whose width changes with time and which only some tokens go through."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.layers.attention import FeedForward
from longtake.layers.linear import linear_gelu
from longtake.layers.modulation import norm_modulate
from longtake.methods.dynamic.dydit.routing import Routing, Spent, TokenRouter, WidthRouter
from longtake.methods.dynamic.dydit.slicing import Slices, linear_of, places


class DynamicFeed(nn.Module):
    """From the stream of tokens to what is added to it, before its gate: mask * MLP(LN(h) (1 + scale) + shift).

    A group of hidden features that is off adds nothing, because GELU(0) = 0. Where nothing is learned, layers are cut to
    the groups that are on and tokens that stay out are not computed.

    Args:
        ffn: whose weights it takes.
        units: groups of hidden features, as many as heads.
        name: under which a call's `Routing` keeps what was done.
        number: of its first router.
        tokens: tokens are chosen; False = all go through.

    Raises:
        BadInput: groups that do not divide the features.
    """

    def __init__(self, ffn: FeedForward, units: int, name: str, number: int, tokens: bool) -> None:
        super().__init__()
        width, inner = ffn.up.in_features, ffn.up.out_features
        if inner % units:
            raise BadInput(
                f"{inner} features of a feed-forward network in {units} equal groups; use heads that divide them"
            )
        self.name, self.size, self.ffn = name, inner // units, ffn
        self.router = WidthRouter(width, units, number)
        self.token_router = TokenRouter(width, number + 1) if tokens else None
        self.slices = Slices()

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor, routing: Routing, always: int = 0) -> Tensor:
        """h (B, ..., D), shift and scale (B, 1, D) float32 -> as h; the last `always` tokens go through in any case."""
        stream = h
        h = h.flatten(1, -2)
        kept = None
        if self.token_router is not None:
            kept = routing.tokens(self.token_router, h[:, : h.shape[1] - always])
            kept = F.pad(kept, (0, always), value=1.0)
        whole = 2 * h.shape[1] * self.ffn.up.in_features * self.ffn.up.out_features
        share = 1.0 if kept is None else kept.mean(1)
        active = None if routing.widths is None else routing.widths[self.router.number]
        layers = None if active is None else self._layers(active, routing)
        if active is None or layers is None:
            gates = routing.width(self.router)
            routing.spent[self.name] = Spent(whole, gates.mean(1), share)
            on = gates.repeat_interleave(self.size, dim=1)[:, None]
            inside = self.ffn.up(norm_modulate(h, shift, scale))
            made = self.ffn.down(F.gelu(inside * on.to(inside), approximate=self.ffn.approximate))
            return (made if kept is None else made * kept[..., None].to(made)).view(stream.shape)
        routing.spent[self.name] = Spent(whole, len(active) / self.router.units, share)
        return self._of_kept(h, shift, scale, kept, *layers).view(stream.shape)

    def _of_kept(
        self, h: Tensor, shift: Tensor, scale: Tensor, kept: Tensor | None, up: nn.Module, down: nn.Module
    ) -> Tensor:
        """The tokens that are kept through layers as they are: (B, S, D) -> (B, S, D)."""
        places_kept = None if kept is None else kept.flatten().nonzero().squeeze(1)
        if places_kept is None or len(places_kept) == h.shape[0] * h.shape[1]:
            return down(linear_gelu(up, norm_modulate(h, shift, scale), self.ffn.approximate))
        made = torch.zeros_like(h)
        if len(places_kept):
            samples = places_kept // h.shape[1]
            u = norm_modulate(h.flatten(0, 1)[places_kept], shift[samples, 0], scale[samples, 0])
            update = down(linear_gelu(up, u, self.ffn.approximate))
            made = made.to(update)
            made.view(-1, h.shape[2])[places_kept] = update
        return made

    def _layers(self, active: tuple[int, ...], routing: Routing) -> tuple[nn.Module, ...] | None:
        def cut(number: int, weight: Tensor, bias: Tensor | None) -> nn.Module:
            on = places(active, self.size, weight.device)
            if number:
                return linear_of(weight[:, on], bias)
            return linear_of(weight[on], None if bias is None else bias[on])

        return self.slices.take((self.ffn.up, self.ffn.down), active, self.router.units, routing, cut)
