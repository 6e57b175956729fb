"""What a backbone gives back: feature maps, class logits, and the way that every token took."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.recognition.token_routing.block import Size
from longtake.runtime.receipts import Counts, Receipt


@dataclass(frozen=True)
class NodeRoutes:
    """The gates of one node of the grid.

    Args:
        scale: 0 to 3, for 1/4 to 1/32 of the image. column: 0 to the number of columns. size: of its map.
        row: (B, N) in [0, 1], 1 = takes the transformer block to the next column; None at the last column and in a
            network without gates.
        down: (B, N), 1 = takes part in the edge to the next scale; None at the last scale and without gates.
    """

    scale: int
    column: int
    size: Size
    row: Tensor | None
    down: Tensor | None


@dataclass(frozen=True)
class RoutedFeatures:
    """What `TokenRoutingBackbone` makes of images.

    Args:
        pyramid: four maps (B, C, h, w), from 1/4 to 1/32 of the image.
        logits: (B, classes), None without a head.
        routes: of all nodes, column by column and in each from fine to coarse.
        macs: (B,) float32 multiply-accumulates of each sample in gathered execution; differentiable towards the gates.
        full: of a sample in the same network with all gates open.
        gathered: whether execution was gathered.
    """

    pyramid: tuple[Tensor, ...]
    logits: Tensor | None
    routes: tuple[NodeRoutes, ...]
    macs: Tensor
    full: int
    gathered: bool

    @property
    def share(self) -> Tensor:
        """(B,) of all multiply-accumulates that gathered execution pays."""
        return self.macs / self.full

    def depth_map(self) -> Tensor:
        """How much of the network each place of the picture got: (B, h, w) in [0, 1] on the finest map.

        The mean over scales and columns of the row gates, coarse ones spread over what they stand for.
        """
        found = [
            F.interpolate(node.row.detach().unflatten(1, node.size)[:, None], self.pyramid[0].shape[2:])[:, 0]
            for node in self.routes
            if node.row is not None
        ]
        return torch.stack(found).mean(0) if found else torch.ones_like(self.pyramid[0][:, 0])

    def receipt(self, config: dict[str, Any]) -> Receipt:
        """What routing did in this call: an edge counts as changed where some tokens take it, as skipped where none do.

        Its notes have a row for each node: scale, column, tokens in all, tokens that took the block and that went down.
        """
        counts, nodes = Counts(), []
        for node in self.routes:
            row, down = (None if gates is None else gates > 0 for gates in (node.row, node.down))
            for edge in (row, down):
                if edge is not None:
                    counts.computed += bool(edge.all())
                    counts.skipped += not edge.any()
                    counts.changed += bool(edge.any() and not edge.all())
            took, sent = (None if edge is None else int(edge.sum()) for edge in (row, down))
            tokens = node.size[0] * node.size[1] * len(self.macs)
            nodes.append({"scale": node.scale, "column": node.column, "tokens": tokens, "row": took, "down": sent})
        whole = self.full * len(self.macs)
        return Receipt(
            "dit-token-routing",
            config,
            sites=counts.computed + counts.skipped + counts.changed,
            branches={"all": counts},
            macs_done=round(float(self.macs.double().sum())) if self.gathered else whole,
            macs_dense=whole,
            notes={"nodes": nodes, "execution": "gathered" if self.gathered else "masked"},
        )
