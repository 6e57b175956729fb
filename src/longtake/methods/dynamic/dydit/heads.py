"""Attention some of whose heads are off: masks for learning, and cut projections for running."""

from collections.abc import Callable

from torch import Tensor, nn

from longtake.backbones.latte_blocks import Layer
from longtake.methods.dynamic.dydit.routing import Routing, WidthRouter
from longtake.methods.dynamic.dydit.slicing import Slices, linear_of, places


class Heads(nn.Module):
    """The choice of heads for one attention.

    Args:
        width: features of the embedded time. heads: H of the attention. size: features of a head.
        number: of its router.
    """

    def __init__(self, width: int, heads: int, size: int, number: int) -> None:
        super().__init__()
        self.size = size
        self.router = WidthRouter(width, heads, number)
        self.slices = Slices()

    def active(self, routing: Routing) -> tuple[int, ...] | None:
        """Which are on for all samples, None where samples differ or something is learned."""
        return None if routing.widths is None else routing.widths[self.router.number]

    def cut(self, projections: tuple[nn.Module, ...], routing: Routing) -> tuple[nn.Module, ...] | None:
        """Pairs of projections, to q, k, v and from all heads, with what is on; None where they must be called whole."""
        active = self.active(routing)
        if active is None:
            return None

        def one(number: int, weight: Tensor, bias: Tensor | None) -> nn.Module:
            if number % 2:
                return linear_of(weight[:, places(active, self.size, weight.device)], bias)
            on = places(active, self.size, weight.device, repeats=3, units=self.router.units)
            return linear_of(weight[on], None if bias is None else bias[on])

        return self.slices.take(projections, active, self.router.units, routing, one)

    def masked(self, out: Layer, gates: Tensor) -> Callable[[Tensor], Tensor]:
        """The output projection behind gates (B, H): (B', S, H size) -> (B', S, D), B' a multiple of B."""
        on = gates.repeat_interleave(self.size, dim=1)[:, None]

        def through(x: Tensor) -> Tensor:
            rows = x.reshape(on.shape[0], -1, x.shape[-1])
            return out((rows * on.to(rows)).view(x.shape))

        return through
