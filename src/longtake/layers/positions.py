"""Learned absolute positions on three axes, and the sinusoidal embedding of a timestep."""

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


def _rows(table: Tensor, length: int) -> Tensor:
    """First `length` rows of a table, or the whole table stretched to `length` with its ends kept in place."""
    if length <= table.shape[0]:
        return table[:length]
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=True)[0].T
