"""Inception score of class probabilities, whichever classifier made them.

    IS = exp(mean_n KL(p_n || mean p))                                                       (arXiv 1606.03498)

between 1 (no clip differs from the mean, or no class is sure) and the number of classes. Mean and standard deviation are
over `splits` consecutive parts of the clips, as in the official code and StyleGAN-V's (N // splits boundaries): the order
of the clips is part of the number, so give it by clip index, or a `generator` that shuffles.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.evaluation.metrics.features import check_features


@dataclass(frozen=True)
class InceptionScore:
    """`mean` and standard deviation `std` (divided by the number of splits) over the splits' `scores`."""

    mean: float
    std: float
    scores: tuple[float, ...]


def inception_score(
    probabilities: Tensor, *, splits: int = 10, generator: torch.Generator | None = None
) -> InceptionScore:
    """Return the score of class probabilities (N, K).

    Args:
        splits: parts that are scored on their own; TATS, StyleGAN-V and most UCF-101 tables use 10.
        generator: shuffles the clips first, when given.

    Raises:
        BadInput: fewer clips than splits, or rows that are not probabilities (logits want a softmax first).
    """
    p = check_features(probabilities, "class probabilities")
    if not 1 <= splits <= len(p):
        raise BadInput(f"{splits} splits of {len(p)} clips; use 1 to {len(p)}.")
    if (p < 0).any() or ((p.sum(1) - 1).abs() > 1e-3).any():
        raise BadInput("class probabilities must be 0 or more and sum to 1; apply a softmax to logits first.")
    if generator is not None:
        p = p[torch.randperm(len(p), generator=generator).to(p.device)]
    scores = []
    for k in range(splits):
        part = p[k * len(p) // splits : (k + 1) * len(p) // splits]
        divergence = torch.xlogy(part, part) - torch.xlogy(part, part.mean(0))  # 0 log 0 = 0
        scores.append(float(divergence.sum(1).mean().exp()))
    found = torch.tensor(scores, dtype=torch.float64)
    return InceptionScore(float(found.mean()), float(found.std(correction=0)), tuple(scores))
