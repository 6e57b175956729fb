"""Skipping a range of blocks: what it adds to the stream of tokens is kept on a full step and added on the others.

The network goes on to call every block. In a skipped range the inner blocks give back what they are given, and the last
one adds the residual, output of the range - input of the range, taken in one layout whatever the blocks' own.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from longtake.errors import Unsupported
from longtake.runtime.method import Block, Here
from longtake.runtime.views import ModelView, canonical, uncanonical


@dataclass(frozen=True)
class Span:
    """Blocks `first` to `last`, both included, in the order of execution."""

    first: int
    last: int

    def __contains__(self, layer: int) -> bool:
        return self.first <= layer <= self.last

    def check(self, view: ModelView) -> None:
        """Raise Unsupported if a network's blocks cannot be skipped so."""
        blocks, safe = len(view.blocks), view.first_safe
        if not 0 <= self.first <= self.last < blocks:
            raise Unsupported(
                f"blocks {self.first} to {self.last} of {blocks}; use a range from {safe} to {blocks - 1}"
            )
        if self.first < safe:
            raise Unsupported(
                f"blocks {self.first} to {self.last} of a {view.family.name}: the network itself adds to the stream before "
                f"block {safe}; begin the range there or later"
            )


def enter(here: Here, name: str, span: Span, h: Tensor, text: Tensor | None) -> None:
    """On a full step, note what goes into the range of that name, if this block is its first."""
    if here.site.layer == span.first:
        here.branch[f"into {name}"] = canonical(h, here.layout, here.grid), text


def leave(here: Here, name: str, span: Span, out: Block) -> list[Tensor] | None:
    """What a range has added to the video tokens (B, F, N, D) and the text tokens, if this block is its last."""
    if here.site.layer != span.last:
        return None
    h, text = here.branch.pop(f"into {name}")
    added = [canonical(out[0], here.layout, here.grid) - h]
    return added if out[1] is None or text is None else [*added, out[1] - text]


def skip(here: Here, span: Span, h: Tensor, text: Tensor | None, residual: Callable[[], list[Tensor]]) -> Block:
    """A block of a range that is skipped."""
    if here.site.layer != span.last:
        return h, text
    added = residual()
    h = h + uncanonical(added[0], here.layout).to(h.dtype)
    return h, text if text is None or len(added) < 2 else text + added[1].to(text.dtype)
