"""Pictures of the way that tokens took."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from longtake.errors import BadInput
from longtake.recognition.token_routing.routes import RoutedFeatures

BLOCK, SENT = (0.98, 0.62, 0.16), (0.10, 0.38, 0.84)
"""Red, green and blue of a token that takes the block, and of one that goes down; they add up."""
GAP = 2


def draw_grid(features: RoutedFeatures, index: int = 0, cell: int = 64) -> Tensor:
    """The grid of nodes as a picture: scales from top to bottom, columns from left to right, one square map for each node.

    A token is orange when it takes the block to the next column, blue when it goes down to the next scale, near white
    when it does both, and black when it does neither.

    Args:
        features: of a batch. index: which image of it. cell: pixels of a map on each side.

    Returns:
        float32 (3, rows, columns) in [-1, 1].

    Raises:
        BadInput: a network without gates.
    """
    if all(node.row is None and node.down is None for node in features.routes):
        raise BadInput("a network with gate='none' has no routes to draw; use one with gates")
    step = cell + GAP
    columns = max(node.column for node in features.routes) + 1
    picture = torch.full((3, len(features.pyramid) * step + GAP, columns * step + GAP), 0.25)
    for node in features.routes:
        colours = torch.zeros(3, *node.size)
        for gates, colour in ((node.row, BLOCK), (node.down, SENT)):
            if gates is not None:
                colours += gates[index].detach().float().cpu().view(1, *node.size) * torch.tensor(colour)[:, None, None]
        top, left = (GAP + at * step for at in (node.scale, node.column))
        picture[:, top : top + cell, left : left + cell] = interpolate(colours[None], (cell, cell))[0]
    return picture.clamp(0, 1) * 2 - 1


def draw_depth(images: Tensor, features: RoutedFeatures) -> Tensor:
    """Images beside how much of the network each place got, dark for little: (B, 3, H, W) -> (B, 3, H, 2 W) in [-1, 1]."""
    depth = interpolate(features.depth_map()[:, None], images.shape[2:]).to(images)
    return torch.cat([images, depth.expand(-1, 3, -1, -1) * 2 - 1], dim=3)
