"""The moving average of the weights: what is validated, sampled from and exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from longtake.training.parallel import local


class Ema:
    """Average of trainable parameters, updated in place, sharded as they are.

    After ``n`` updates the decay is ``min(target, (1 + n) / (10 + n))``, so that the random start is soon forgotten.

    Args:
        parameters: name -> parameter; the average starts as a copy (fp32).
        decay: the target, in [0, 1). 0 keeps no average: it is the weights themselves.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}
        self._average = [local(t) for t in self.tensors.values()]
        self._weights = [local(p.detach()) for p in parameters.values()] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after optimiser step ``step`` (the first is 0)."""
        if self._average:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._average, self._weights, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the context the networks hold the average; behind it they hold their own weights again, bit for bit."""
        if not self._average:
            yield
            return
        with torch.no_grad():
            own = [w.clone() for w in self._weights]
            torch._foreach_copy_(self._weights, self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, own)
