"""Alignment of a generator's inner states with what the scene shows, for training on scenes.

Waver (arXiv 2508.15761) pulls intermediate video tokens to features of a frozen vision-language model, so that the
denoiser learns sooner what it is drawing. Scenes come with the truth itself: a small head reads from each video token
the colour, shape and motion of the object that fills it. The head is thrown away after training.

Waver leaves weight, layer and schedule open. Ours: the states behind one block in the middle, a constant weight, no
target where no object is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AlignmentHead(nn.Module):
    """Logits of every attribute's classes from video tokens (B, N, D): (B, N, sum(classes)).

    Args:
        width: features D of a token.
        classes: number of classes of each attribute.
    """

    def __init__(self, width: int, classes: tuple[int, ...]) -> None:
        super().__init__()
        self.arguments = {"width": width, "classes": classes}
        self.classes = tuple(classes)
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, sum(classes))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, sum(classes))."""
        return self.layers(tokens)


def coverage(instances: Tensor, objects: int, grid: tuple[int, int, int]) -> Tensor:
    """Share of each token's pixels and frames that each object fills.

    Args:
        instances: (B, T, h, w), n where object n is, 0 elsewhere; h and w are multiples of the grid's.
        objects: K, how many objects to ask for.
        grid: token frames, rows and columns. Token frame 0 stands for frame 0, token frame t for an equal share of the
            others (those of a causal tokenizer).

    Returns:
        (B, K, frames, rows, columns) in [0, 1].
    """
    frames, rows, columns = grid
    each = torch.stack([instances == number for number in range(1, objects + 1)], dim=1).float()
    parts = [F.adaptive_avg_pool3d(each[:, :, :1], (1, rows, columns))]
    if frames > 1:
        parts.append(F.adaptive_avg_pool3d(each[:, :, 1:], (frames - 1, rows, columns)))
    return torch.cat(parts, dim=2)


def alignment_loss(logits: Tensor, classes: tuple[int, ...], shares: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of the attributes, mean over what objects fill of all tokens and over attributes: a scalar.

    Args:
        logits: (B, N, sum(classes)), any float dtype.
        classes: number of classes of each of the A attributes.
        shares: (B, K, ...) in [0, 1], N entries for each object: how much of a token each object fills.
        truth: (B, K, A), the class of each attribute of each object.
    """
    weights = shares.flatten(2)  # (B, K, N)
    total = logits.new_zeros((), dtype=torch.float32)
    for attribute, part in enumerate(logits.float().split(classes, dim=-1)):
        wanted = truth[..., attribute].long()[:, None].expand(-1, part.shape[1], -1)  # (B, N, K)
        surprise = -part.log_softmax(-1).gather(-1, wanted)  # (B, N, K)
        total = total + (surprise.transpose(1, 2) * weights).sum()
    return total / (len(classes) * weights.sum().clamp_min(1e-6))
