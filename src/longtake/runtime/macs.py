"""Multiply-accumulates of a network, counted from the shapes that its modules see.

A linear layer costs rows * in * out, a convolution its outputs times the inputs of each, an attention of S_q queries and
S_k keys 2 * S_q * S_k * C for scores and values together, whatever its mask. Norms, activations and sums are not
counted. What a module *would* cost densely is what counts, so that a replaced layer counts as the one it replaces.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from longtake.runtime.nouns import AttnCall
from longtake.runtime.views import ModelView


def linear_macs(rows: int, inputs: int, outputs: int) -> int:
    """Of a linear layer."""
    return rows * inputs * outputs


def attention_macs(call: AttnCall) -> int:
    """Of both products of an attention, dense."""
    batch, heads, queries, width = call.q.shape
    return 2 * batch * heads * queries * call.k.shape[2] * width


class Costs:
    """Multiply-accumulates of one call of a network, by the dotted name of the module that does them."""

    def __init__(self) -> None:
        self.by_module: Counter[str] = Counter()
        self._sums: dict[tuple[str, ...], int] = {}

    @property
    def total(self) -> int:
        """Of the whole call."""
        return self.of("")

    def of(self, *prefixes: str) -> int:
        """Of modules and all that is inside of them, once everything has been counted."""
        if prefixes not in self._sums:
            self._sums[prefixes] = sum(
                macs
                for name, macs in self.by_module.items()
                if any(not prefix or name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
            )
        return self._sums[prefixes]


@contextmanager
def counting(view: ModelView) -> Iterator[tuple[Costs, Callable[[str, AttnCall], None]]]:
    """Count the costs of the network's calls inside. Attentions are told by whoever sees them: (site's name, call)."""
    costs = Costs()
    handles = []
    for name, module in view.network.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            handles.append(module.register_forward_pre_hook(_of_linear(costs, name)))
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            handles.append(module.register_forward_hook(_of_convolution(costs, name)))

    def of_attention(name: str, call: AttnCall) -> None:
        costs.by_module[name] += attention_macs(call)

    try:
        yield costs, of_attention
    finally:
        for handle in handles:
            handle.remove()


def _of_linear(costs: Costs, name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
    def seen(module: Any, args: tuple[Tensor, ...]) -> None:
        rows = args[0].numel() // args[0].shape[-1]
        costs.by_module[name] += linear_macs(rows, module.in_features, module.out_features)

    return seen


def _of_convolution(costs: Costs, name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
    def seen(module: Any, args: tuple[Tensor, ...], made: Tensor) -> None:
        costs.by_module[name] += made.numel() * module.weight[0].numel()

    return seen
