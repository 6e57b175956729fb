"""What every metric of a set asks of its features, and distances between them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from longtake.errors import BadInput


def check_features(features: Tensor, name: str = "features", fewest: int = 1) -> Tensor:
    """Return features (N, D) in float64.

    Raises:
        BadInput: another rank, fewer than `fewest` rows, or a row that is not finite, which is named.
    """
    if features.ndim != 2 or features.shape[1] == 0:
        raise BadInput(f"{name} must be (clips, width); these are {tuple(features.shape)}.")
    if len(features) < fewest:
        raise BadInput(f"{name} hold {len(features)} clips; this metric needs at least {fewest}.")
    features = features.detach().to(torch.float64)
    finite = features.isfinite().all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise BadInput(
            f"{name} of {int((~finite).sum())} clips are not finite, the first of them clip {first}; "
            "check those clips and the feature network."
        )
    return features


def check_pair(x: Tensor, y: Tensor, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """Return two sets of features of one width in float64 on one device; errors as `check_features`."""
    x, y = check_features(x, "the first features", fewest), check_features(y, "the second features", fewest)
    if x.shape[1] != y.shape[1]:
        raise BadInput(f"features of width {x.shape[1]} and {y.shape[1]} cannot be compared; use one feature network.")
    return x, y.to(x.device)


def rows(count: int, block: int) -> Iterator[slice]:
    """Consecutive slices of at most `block` that cover `count` rows."""
    if block < 1:
        raise BadInput(f"a block of {block} rows; it must be at least 1.")
    return (slice(first, min(first + block, count)) for first in range(0, count, block))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) of float64 (N, D) and (M, D), each clamped at 0.

    By |x|^2 + |y|^2 - 2 x.y, so exact to about 1e-16 of the squared norms: centre the features if those are large.
    """
    square = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(square, x, y.T, alpha=-2).clamp_min_(0)
