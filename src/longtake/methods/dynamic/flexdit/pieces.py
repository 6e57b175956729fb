"""What both kinds of networks are converted with: pooling, spreading out again, and projections taken apart.

Means over cells are torch's adaptive pooling, whose cells overlap where sizes do not divide. arXiv 2412.06028; W1, W2 and
the split of fused projections as in the published code.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longtake.layers.linear import Linear
from longtake.methods.dynamic.flexdit.density import Layout
from longtake.runtime import TokenGrid


def pool_edges(many: int, few: int) -> list[tuple[int, int]]:
    """First and last + 1 of the places that each pooled cell is the mean of (adaptive pooling; cells may overlap)."""
    return [(i * many // few, -(-(i + 1) * many // few)) for i in range(few)]


def centres(many: int, few: int) -> Tensor:
    """Mean place of each cell: float64 (few,)."""
    return torch.tensor([(first + last - 1) / 2 for first, last in pool_edges(many, few)], dtype=torch.float64)


def nearest_cells(many: int, few: int) -> Tensor:
    """Which cell each place takes its value from when cells are spread out again: (many,), i * few // many."""
    return torch.arange(many) * few // many


def pool(h: Tensor, dense: TokenGrid, sparse: TokenGrid) -> Tensor:
    """Mean over cells: (B, F, N, D) -> (B, F', N', D)."""
    b, f, _, d = h.shape
    if (dense.height, dense.width) != (sparse.height, sparse.width):
        plane = h.reshape(b * f, dense.height, dense.width, d).permute(0, 3, 1, 2)
        plane = torch.nn.functional.adaptive_avg_pool2d(plane, (sparse.height, sparse.width))
        h = plane.permute(0, 2, 3, 1).reshape(b, f, -1, d)
    return h if sparse.frames == f else h.unflatten(1, (sparse.frames, -1)).mean(2)


def spread(s: Tensor, dense: TokenGrid, sparse: TokenGrid) -> Tensor:
    """Nearest neighbours: (B, F', N', D) -> (B, F, N, D)."""
    if (dense.height, dense.width) != (sparse.height, sparse.width):
        rows, columns = nearest_cells(dense.height, sparse.height), nearest_cells(dense.width, sparse.width)
        s = s.index_select(2, (rows[:, None] * sparse.width + columns).flatten().to(s.device))
    return s.repeat_interleave(dense.frames // sparse.frames, dim=1) if dense.frames != sparse.frames else s


def arrange(
    blocks: nn.ModuleList,
    layout: Layout,
    module: Callable[[list[nn.Module], list[nn.Module], nn.Module, list[nn.Module]], nn.Module],
) -> tuple[list[nn.Module], nn.ModuleList]:
    """Blocks in a layout's roles: those of the bottom, and the whole list with the modules in place of their blocks.

    Args:
        blocks: layout.depth of them, in order; they are taken over.
        module: from the blocks that generate, those on sparse tokens, the one that recovers and the dense ones.
    """
    rest = iter(blocks)

    def take(count: int) -> list[nn.Module]:
        return [next(rest) for _ in range(count)]

    bottom = take(layout.bottom)
    made = list(bottom)
    for counts in layout.modules:
        generate, sparse, (recover,), dense = (take(count) for count in counts)
        made.append(module(generate, sparse, recover, dense))
    return bottom, nn.ModuleList([*made, *take(layout.top)])


def linear_of(fused: nn.Linear, first: int, last: int) -> Linear:
    """Thirds `first` to `last` - 1 of a fused q, k, v projection as a layer of its own."""
    third = fused.out_features // 3
    made = Linear(fused.in_features, (last - first) * third, bias=fused.bias is not None)
    rows = slice(first * third, last * third)
    with torch.no_grad():
        made.weight.copy_(fused.weight[rows])
        if fused.bias is not None:
            made.bias.copy_(fused.bias[rows])
    return made.to(fused.weight)


def fusion(width: int) -> tuple[Linear, Linear]:
    """W1 of the recovered tokens, which starts at zero, and W2 of the dense ones, which starts as the identity."""
    from_sparse, from_dense = Linear(width, width), Linear(width, width)
    for layer in (from_sparse, from_dense):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.eye_(from_dense.weight)
    return from_sparse, from_dense
