"""Positions that are added to tokens, fixed or learned, and the sinusoidal embedding of a timestep."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_features(timestep: Tensor, features: int = 256, period: float = 1e4) -> Tensor:
    """[cos | sin] features of a timestep: (B,) on a scale of 0 to 1000 -> float32 (B, features)."""
    half = features // 2
    index = torch.arange(half, dtype=torch.float32, device=timestep.device)
    angle = timestep.float()[:, None] * torch.exp(-math.log(period) / half * index)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def sincos_line(positions: Tensor, features: int, period: float = 1e4) -> Tensor:
    """Fixed [sin | cos] positions on one axis (MAE, arXiv 2111.06377): (n,) -> float32 (n, features), even features."""
    half = features // 2
    index = torch.arange(half, dtype=torch.float64, device=positions.device)
    angle = torch.outer(positions.double(), period ** (-index / half))
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def sincos_plane(rows: Tensor, columns: Tensor, features: int) -> Tensor:
    """Fixed positions on a plane: the first half of the features codes the column, the second the row.

    Args:
        rows, columns: (h,) and (w,), coordinates of the grid's rows and columns.
        features: a multiple of 4.

    Returns:
        float32 (h*w, features), row by row.
    """
    y, x = (sincos_line(axis, features // 2) for axis in (rows, columns))
    h, w = len(y), len(x)
    return torch.cat([x.expand(h, w, -1), y[:, None].expand(h, w, -1)], dim=-1).flatten(0, 1)


class FactorisedPositions(nn.Module):
    """One learned table per axis; a token's position is the sum of its three rows. Zero at the start.

    Args:
        size: lengths of the tables for (frames, height, width) of the token grid.
        width: features of a token.
    """

    def __init__(self, size: tuple[int, int, int], width: int):
        super().__init__()
        self.frames = nn.Parameter(torch.zeros(size[0], width))
        self.height = nn.Parameter(torch.zeros(size[1], width))
        self.width = nn.Parameter(torch.zeros(size[2], width))

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        """Return the positions (T*H*W, D) of a grid. An axis longer than its table is interpolated linearly."""
        t, h, w = (_rows(table, n) for table, n in zip((self.frames, self.height, self.width), grid, strict=True))
        return (t[:, None, None] + h[:, None] + w).flatten(0, 2)


def box_places(grid: tuple[int, int, int], start: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    """Numbers, in a grid (frames, height, width) counted frame by frame and row by row, of the tokens of a box in it.

    Args:
        start: the box's first frame, row and column. size: its frames, rows and columns; it lies inside the grid.

    Returns:
        int64 (t*h*w,), in the same order.
    """
    number = torch.arange(grid[0] * grid[1] * grid[2]).view(grid)
    frames, rows, columns = (slice(first, first + count) for first, count in zip(start, size, strict=True))
    return number[frames, rows, columns].flatten()


def _rows(table: Tensor, length: int) -> Tensor:
    """First `length` rows of a table, or the whole table stretched to `length` with its ends kept in place."""
    if length <= table.shape[0]:
        return table[:length]
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=True)[0].T
