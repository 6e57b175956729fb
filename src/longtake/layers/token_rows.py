"""Some tokens of each row: all rows' picked tokens behind one another, and padded to the longest row for attention.

A mask (R, N) picks tokens, other ones in each row. ``x[mask]`` (n, D) are they, row by row, and so are `take`'s, which is
faster. Linear layers take them so. Attention wants equally many queries in each row, and gets them padded with zeros.
"""

import torch
from torch import Tensor


def places_of(mask: Tensor) -> Tensor:
    """Numbers of the picked tokens among all rows' tokens: (R, N) -> int64 (n,)."""
    return mask.flatten().nonzero().squeeze(1)


def take(x: Tensor, places: Tensor) -> Tensor:
    """Tokens (R, N, D) of these numbers: (n, D)."""
    return x.flatten(0, 1).index_select(0, places)


def pad_rows(flat: Tensor, mask: Tensor) -> Tensor:
    """Picked tokens (n, D) -> (R, P, D), P those of the fullest row; places that a row does not need hold zeros."""
    places = _places(mask)
    rows = flat.new_zeros(*places.shape, flat.shape[-1])
    rows[places] = flat
    return rows


def flat_rows(rows: Tensor, mask: Tensor) -> Tensor:
    """The reverse of `pad_rows`: (R, P, D) -> (n, D)."""
    return rows[_places(mask)]


def _places(mask: Tensor) -> Tensor:
    """Which of the P places of each row are taken: bool (R, P)."""
    counts = mask.sum(1)
    return torch.arange(int(counts.max()), device=mask.device) < counts[:, None]
