"""Multiply-accumulates of a network, counted from the shapes of the products that it computes.

A linear layer costs rows * in * out, a convolution its outputs times the inputs of each, an attention of S_q queries and
S_k keys 2 * S_q * S_k * C for scores and values together, whatever its mask. Norms, activations and sums are not
counted. What a place *would* cost densely is what counts: a replaced layer counts as the one it replaces, and an attention
is told before a method decides how to compute it.

Products are seen as torch dispatches them, with the formulas of torch's own counter, and modules are followed by torch's
global hooks: nothing is put on the network, so that it computes the same bits whether it is counted or not.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

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


def scores(name: str, number: int = 0) -> str:
    """Under which name an attention itself is counted, apart from the module's linear layers: the module's how manieth."""
    return f"{name}.scores.{number}"


class Counting(TorchDispatchMode):
    """While active, counts the products of a network's calls.

    Args:
        network: whose modules they are counted for.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.costs = Costs()
        self._names = {module: name for name, module in network.named_modules()}
        self._path, self._known = [""], 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        formula = None if self._known else FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.costs.by_module[self._path[-1]] += formula(*args, **(kwargs or {}), out_val=made) // 2
        return made

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module begins."""
        self._path.append(self._names.get(module, self._path[-1]))
        if _stands_in(module):
            rows = args[0].numel() // args[0].shape[-1]
            self.costs.by_module[self._path[-1]] += linear_macs(rows, module.in_features, module.out_features)
            self._known += 1

    def leave(self, module: nn.Module, args: tuple[Any, ...], made: Any) -> None:
        """A module ends."""
        self._path.pop()
        self._known -= _stands_in(module)

    @contextmanager
    def attention(self, name: str, call: AttnCall) -> Iterator[None]:
        """Count an attention as dense, and nothing of what is done for it inside."""
        self.costs.by_module[name] += attention_macs(call)
        self._known += 1
        try:
            yield
        finally:
            self._known -= 1


@contextmanager
def counting(view: ModelView) -> Iterator[Counting]:
    """Count the costs of the network's calls inside. Attentions are told by whoever sees them."""
    counter = Counting(view.network)
    handles = [register_module_forward_pre_hook(counter.enter), register_module_forward_hook(counter.leave)]
    try:
        with counter:
            yield counter
    finally:
        for handle in handles:
            handle.remove()


def _stands_in(module: nn.Module) -> bool:
    """Whether a module is in the place of a linear layer, and may compute it in any way."""
    own = hasattr(module, "in_features") and hasattr(module, "out_features")
    return own and not isinstance(module, nn.Linear) and next(module.children(), None) is None


def _linear_flops(x: Tensor, weight: Tensor, *rest: Any, out_val: Any) -> int:
    return 2 * linear_macs(x.numel() // x.shape[-1], x.shape[-1], weight.shape[0])


def _attention_flops(q: Tensor, k: Tensor, v: Tensor, *rest: Any, out_val: Any, **options: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Operator -> floating-point operations of a call: torch's, and those of the CPU that torch leaves out."""
    known: dict[Any, Callable[..., int]] = dict(flop_registry)
    known[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = _attention_flops
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        known[torch.ops.mkldnn._linear_pointwise] = _linear_flops
    return known


FORMULAS = _formulas()
