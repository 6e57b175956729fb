"""Heads and hidden features in another order: the same function, with the largest weights first."""

from typing import Any

import torch
from torch import Tensor, nn

from longtake.backbones.latte_blocks import AxisAttention
from longtake.backbones.waver_blocks import DualAttention, SingleAttention
from longtake.layers.attention import FeedForward
from longtake.methods.dynamic.dydit.slicing import places


@torch.no_grad()
def largest_first(network: Any) -> None:
    """Sort the heads of every self-attention, and the hidden features of every feed-forward network, of one of our networks.

    Features are sorted one by one, so that equal groups of them go from the most to the least. What counts is the sum of
    squares of all weights that a head or a feature has.
    """
    units = network.config.heads
    for module in network.modules():
        if isinstance(module, AxisAttention):
            _sort([(module.qkv, module.out)], module.heads, 3)
        elif isinstance(module, DualAttention):
            _sort([(stream.qkv, stream.out) for stream in (module.video, module.text)], module.attend.site.heads, 3)
        elif isinstance(module, SingleAttention):
            _sort([(module.joint.qkv, module.joint.out)], module.attend.site.heads, 3)
        elif isinstance(module, FeedForward) and module.up.out_features % units == 0:
            _sort([(module.up, module.down)], module.up.out_features, 1)


def unit_norms(first: nn.Linear, second: nn.Linear | None, units: int, repeats: int) -> Tensor:
    """Sum of squares of each unit's weights: (units,). Arguments as `_sort`."""
    size = first.out_features // (repeats * units)
    total = first.weight.unflatten(0, (repeats, units, size)).square().sum((0, 2, 3))
    return total if second is None else total + second.weight.unflatten(1, (units, size)).square().sum((0, 2))


def _sort(layers: list[tuple[nn.Linear, Any]], units: int, repeats: int) -> None:
    """Sort units alike in pairs of layers that make them (`repeats` runs of all units) and that take them."""
    norms = sum(unit_norms(first, second, units, repeats) for first, second in layers)
    order = tuple(torch.as_tensor(norms).argsort(descending=True).tolist())
    for first, second in layers:
        size, device = first.out_features // (repeats * units), first.weight.device
        rows = places(order, size, device, repeats, units)
        first.weight.copy_(first.weight[rows])
        if first.bias is not None:
            first.bias.copy_(first.bias[rows])
        if second is not None:
            second.weight.copy_(second.weight[:, places(order, size, device)])
