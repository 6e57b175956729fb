"""Nearest neighbours among features: precision and recall of a generator, and whether it copies its training clips."""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.evaluation.metrics.features import check_features, check_pair, rows, squared_distances

BLOCK = 2048
"""Rows of the distance matrix held at a time."""


@dataclass(frozen=True)
class Manifold:
    """`precision`, the share of generated clips among the real ones, and `recall`, the reverse; both in [0, 1]."""

    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3, block: int = BLOCK) -> Manifold:
    """Return improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991).

    A set covers a point that lies in the ball of one of its clips, up to and including the k-th nearest other clip of
    the same set. Precision falls when clips look like nothing real, recall when kinds of real clips are missing. Both
    depend on N: compare equal sizes only. One outlier with a wide ball lifts them.

    Args:
        real, fake: features (N, D) and (M, D). k: 3 in the paper. block: rows of distances held at a time.

    Raises:
        BadInput: a set of k clips or fewer, other widths, features that are not finite.
    """
    if k < 1:
        raise BadInput(f"k is {k}; the nearest neighbour is k = 1.")
    real, fake = check_pair(real, fake, k + 1)
    centre = real.mean(0)
    real, fake = real - centre, fake - centre
    return Manifold(
        precision=float(_covered(fake, real, k, block).double().mean()),
        recall=float(_covered(real, fake, k, block).double().mean()),
    )


def nearest(queries: Tensor, references: Tensor, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Return Euclidean distances (N,) float64 and indices (N,) of each query's nearest reference.

    The distance of the pair that was found is computed anew as a difference, so that of a copy is exactly 0.
    """
    queries, references = check_pair(queries, references)
    centre = references.mean(0)
    best = queries.new_full((len(queries),), torch.inf)
    index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for i in rows(len(queries), block):
        for j in rows(len(references), block):
            found, where = squared_distances(queries[i] - centre, references[j] - centre).min(1)
            closer = found < best[i]
            best[i] = torch.where(closer, found, best[i])
            index[i] = torch.where(closer, where + j.start, index[i])
    return (queries - references[index]).norm(dim=1), index


@dataclass(frozen=True)
class Memorisation:
    """Whether generated clips lie nearer to the training clips than held-out real ones do.

    Attributes:
        closer: probability that a random generated clip is nearer to its nearest training clip than a random held-out
            clip is to its own, ties counting half: 0.5 for fresh clips, 1 for copies, below 0.5 for clips off the data.
        ratio: median distance of generated clips over that of held-out clips.
        copies: share of generated clips nearer than the nearest `share` of held-out clips; `share` when fresh.
        distances, indices: of each generated clip, its nearest training clip (M,).
    """

    closer: float
    ratio: float
    copies: float
    distances: Tensor
    indices: Tensor


def memorisation(
    generated: Tensor, training: Tensor, held_out: Tensor, *, share: float = 0.01, block: int = BLOCK
) -> Memorisation:
    """Compare distances to the training set, after the data-copying test of Meehan et al. (arXiv 2004.05675).

    Distances are only as good as the features: a network that ignores what was copied sees nothing. Augmented training
    clips (flips, other offsets) belong into `training`.

    Args:
        generated, training, held_out: features (M, D), (N, D) and (L, D); held-out clips are of the training
            distribution but were not trained on.
        share: in (0, 1), the quantile of held-out distances below which a generated clip counts as a copy.

    Raises:
        BadInput: an empty set, other widths, features that are not finite, or an impossible share.
    """
    if not 0 < share < 1:
        raise BadInput(f"share is {share}; it must lie between 0 and 1.")
    distances, indices = nearest(generated, training, block=block)
    usual = nearest(check_features(held_out, "the held-out features"), training, block=block)[0].to(distances)
    ordered = usual.sort().values
    below = torch.searchsorted(ordered, distances)
    up_to = torch.searchsorted(ordered, distances, right=True)
    closer = 1 - (below + up_to).double().mean() / (2 * len(ordered))
    middle = distances.quantile(0.5), usual.quantile(0.5)
    return Memorisation(
        closer=float(closer),
        ratio=float(middle[0] / middle[1]) if middle[1] > 0 else float("nan"),
        copies=float((distances < ordered[int(share * len(ordered))]).double().mean()),
        distances=distances,
        indices=indices,
    )


def _covered(points: Tensor, clips: Tensor, k: int, block: int) -> Tensor:
    """Which points (M,) lie in the ball of any of the clips."""
    covered = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for i in rows(len(clips), block):
        radius = _kth(clips[i], clips, k + 1, block)  # the clip itself is the first, at distance 0
        for j in rows(len(points), block):
            covered[j] |= (squared_distances(points[j], clips[i]) <= radius).any(1)
    return covered


def _kth(points: Tensor, clips: Tensor, k: int, block: int) -> Tensor:
    """Squared distance (n,) of each point to its k-th nearest clip."""
    best = points.new_full((len(points), 0), torch.inf)
    for j in rows(len(clips), block):
        found = torch.cat([best, squared_distances(points, clips[j])], 1)
        best = found.topk(min(k, found.shape[1]), largest=False).values
    return best[:, -1]
