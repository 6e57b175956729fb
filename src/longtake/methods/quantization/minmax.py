"""Weights of linear layers in 8 bits, from the smallest and largest of each output's weights.

The plainest quantisation: w ~ (q + z) * s with q in 0 to 255, and s and z of each output from its own minimum and maximum.
Weights are kept as bytes and brought back to the network's dtype at each call, so memory is saved and time is not. Other
quantisers are measured against it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.layers.linear import linear
from longtake.runtime.knobs import Knob
from longtake.runtime.method import Method
from longtake.runtime.nouns import Site
from longtake.runtime.receipts import Receipt


class ByteLinear(nn.Module):
    """A linear layer whose weights are bytes: (..., in_features) -> (..., out_features)."""

    def __init__(self, layer: nn.Linear, levels: int) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        scale = ((high - low) / (levels - 1)).clamp(min=torch.finfo(torch.float32).tiny)
        self.register_buffer("codes", ((weight - low) / scale).round().to(torch.uint8))
        self.register_buffer("scale", scale)
        self.register_buffer("low", low)
        self.bias = layer.bias

    def weights(self, dtype: torch.dtype) -> Tensor:
        """The weights that the bytes stand for, (out_features, in_features)."""
        return torch.addcmul(self.low, self.codes.float(), self.scale).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weights(x.dtype), self.bias)


@dataclass(frozen=True)
class MinMaxWeights(Method):
    """8-bit weights.

    Args:
        bits: 2 to 8 are used of each byte.
        keep: names of layers that stay as they are contain one of these, joined by "|".
    """

    name: ClassVar[str] = "minmax8"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("bits", (8, 7, 6, 5, 4, 3, 2)),)

    bits: int = 8
    keep: str = "modulation|projection.linear"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise BadInput(f"minmax8: bits is {self.bits}; use 2 to 8")

    def rank(self) -> str:
        return "linear"

    def owns(self) -> frozenset[str]:
        return frozenset({"linear"})

    def linear(self, site: Site, module: nn.Module) -> nn.Module | None:
        kept = any(part in site.name for part in self.keep.split("|") if part)
        return None if kept or not isinstance(module, nn.Linear) else ByteLinear(module, 2**self.bits)

    def report(self, receipt: Receipt, replaced: list[tuple[nn.Module, nn.Module]]) -> None:
        receipt.notes["weight_bytes"] = {
            "before": sum(old.weight.nbytes for old, _ in replaced),  # type: ignore[union-attr]
            "now": sum(b.nbytes for _, new in replaced for b in new.buffers()),
        }
