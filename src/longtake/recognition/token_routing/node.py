"""One node of the grid: what arrives is merged, gates decide about each token, and up to two edges leave."""

import torch
from torch import Tensor, nn

from longtake.layers.token_gates import TokenGate
from longtake.recognition.token_routing.block import RoutedTransformer, Size
from longtake.recognition.token_routing.embedding import VerticalEdge


class Node(nn.Module):
    """A node and the edges that leave it.

    Args:
        merge: norm of what is there and what came from above; None at the finest scale.
        block: the edge to the next column, None at the last. down: the edge to the next scale, None at the last.
        gated: whether there are gates.
    """

    def __init__(
        self,
        merge: nn.LayerNorm | None,
        block: RoutedTransformer | None,
        down: VerticalEdge | None,
        width: int,
        gated: bool,
    ) -> None:
        super().__init__()
        self.merge, self.block, self.down = merge, block, down
        edges = (block is not None) + (down is not None)
        self.gate = TokenGate(width, edges) if gated and edges else None

    def arrive(self, there: Tensor, sent: Tensor, arrived: Tensor | None) -> Tensor:
        """Merge what came from above, (B, N, C), into what is there; tokens that received nothing stay as they are.

        `arrived` bool (B, N) are those that received anything, None = all.
        """
        assert self.merge is not None
        merged = self.merge(there + sent)
        return merged if arrived is None else torch.where(arrived[..., None], merged, there)

    def logits(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Of tokens (B, N, C) the gates' z, float32 (B, N), of the block and of the edge down; None where there is none."""
        if self.gate is None:
            return None, None
        z = self.gate(x)
        return None if self.block is None else z[..., 0], None if self.down is None else z[..., -1]

    def onwards(self, x: Tensor, size: Size, gates: Tensor | None, gathered: bool) -> Tensor:
        """Tokens (B, N, C) at the next column."""
        if self.block is None:
            return x
        if gathered and gates is not None:
            return self.block.gathered(x, size, gates.to(x.dtype))
        return self.block(x, size, None if gates is None else gates.to(x.dtype))

    def downwards(self, x: Tensor, size: Size, gates: Tensor | None, gathered: bool) -> tuple[Tensor, Tensor | None]:
        """What goes to the next scale, (B, N', C'), and which tokens there receive anything."""
        assert self.down is not None
        if gathered and gates is not None:
            return self.down.gathered(x, size, gates.to(x.dtype))
        return self.down(x, size, None if gates is None else gates.to(x.dtype))

    def macs(self, size: Size, row: Tensor | None, down: Tensor | None) -> Tensor | int:
        """Multiply-accumulates of its gate and its edges; row, down: gates (B, N) -> (B,)."""
        total: Tensor | int = self._gate_macs(size)
        if self.block is not None and row is not None:
            total = total + self.block.cost(size).of(row)
        if self.down is not None and down is not None:
            total = total + self.down.macs(size, down)
        return total

    def full_macs(self, size: Size) -> int:
        """The same where all gates are open."""
        block = 0 if self.block is None else self.block.cost(size).full(size[0] * size[1])
        return self._gate_macs(size) + block + (0 if self.down is None else self.down.full(size))

    def _gate_macs(self, size: Size) -> int:
        return 0 if self.gate is None else self.gate.macs(size[0] * size[1])
