"""Linear layers cut down to the heads or groups that are on, kept until their weights change."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from longtake.layers.linear import Linear
from longtake.methods.dynamic.dydit.routing import Routing
from longtake.methods.dynamic.dydit.td_lora import TDLoraLinear

KEPT = 64  # sets of layers that one module keeps, more than a run has steps of different width


class Slices:
    """Cut layers of one attention or feed-forward network, by what is on.

    They are made anew when a weight was written to or put in another's place (a load, a swap with an average).
    """

    def __init__(self) -> None:
        self.known: dict[Any, tuple[Any, tuple[nn.Module, ...]]] = {}

    def take(
        self,
        layers: tuple[nn.Module, ...],
        active: tuple[int, ...],
        units: int,
        routing: Routing,
        cut: Callable[[int, Tensor, Tensor | None], nn.Module],
    ) -> tuple[nn.Module, ...] | None:
        """The layers for what is on, or None where one is not plain (hooked, wrapped, quantised) and must be called whole.

        Args:
            layers: whole. active: what is on, of `units`.
            cut: (which layer, its weight, its bias) -> the cut one.
        """
        mixed = any(isinstance(layer, TDLoraLinear) for layer in layers)
        if len(active) == units and not mixed:
            return layers
        if not all(map(plain, layers)) or (mixed and routing.moment is None):
            return None
        key = active, routing.moment if mixed else None
        stamp = tuple(_stamp(weight) for layer in layers for weight in layer.parameters())
        found = self.known.get(key)
        if found is None or found[0] != stamp:
            made = tuple(cut(i, *weights_of(layer, routing)) for i, layer in enumerate(layers))
            self.known.pop(key, None)
            while len(self.known) >= KEPT:
                self.known.pop(next(iter(self.known)))
            self.known[key] = stamp, made
        return self.known[key][1]


def plain(layer: nn.Module) -> bool:
    """Whether a layer is nothing but its weights."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return type(layer) in (Linear, nn.Linear, TDLoraLinear) and not hooked


def weights_of(layer: nn.Module, routing: Routing) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a plain layer at the call's timestep."""
    if isinstance(layer, TDLoraLinear):
        return layer.weights_at(routing.time[:1])
    return layer.weight, layer.bias  # type: ignore[return-value]


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    """A layer of copies of these, without gradients."""
    rows, columns = weight.shape
    made: Any = nn.utils.skip_init(Linear, columns, rows, bias=bias is not None, device=weight.device)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def places(active: tuple[int, ...], size: int, device: torch.device, repeats: int = 1, units: int = 0) -> Tensor:
    """Which features belong to units of `size` features that are on, in each of `repeats` runs of `units` units."""
    first = torch.tensor(active, device=device)[:, None] * size
    own = (first + torch.arange(size, device=device)).flatten()
    return (torch.arange(repeats, device=device)[:, None] * (units * size) + own).flatten()


def _stamp(weight: Tensor) -> tuple[int, int, torch.dtype]:
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version, weight.dtype
