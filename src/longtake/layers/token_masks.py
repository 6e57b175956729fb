"""Which tokens of a sequence may look at which: boolean masks, rows are queries, columns are keys, True = may look."""

from collections.abc import Sequence

import torch
from torch import Tensor


def causal_mask(rows: int, past: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Each of `rows` new tokens sees the `past` tokens before them, itself, and what is between: (rows, past + rows)."""
    return torch.ones(rows, past + rows, dtype=torch.bool, device=device).tril(past)


def packed(lengths: Sequence[int], device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Several sequences one behind the other in one row, none of which sees another.

    Args:
        lengths: of the sequences, N in all.

    Returns:
        mask (N, N): causal inside each sequence. positions int64 (N,): from 0 in each sequence.
    """
    counts = torch.tensor(lengths, device=device)
    owner = torch.arange(len(lengths), device=device).repeat_interleave(counts)
    start = (counts.cumsum(0) - counts).repeat_interleave(counts)
    mask = (owner[:, None] == owner) & causal_mask(len(owner), device=device)
    return mask, torch.arange(len(owner), device=device) - start
