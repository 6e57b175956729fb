"""What a feature network is to the metrics: a name, a hash, a width, and a function from bytes to features."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from longtake.errors import BadInput

PUBLISHED = {"FVD": "i3d", "KVD": "i3d", "FID": "inception", "IS": "c3d", "KID": "inception"}
"""The network behind each published name; a number from any other carries its network's name in brackets."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that turns clips, or single frames, into features.

    Attributes:
        name: printed with every number: "i3d", "scenes-3d", ... hash: of its weights and of how it is called.
        width: features of a clip, D. frames: whether it sees single frames (T = 1) and not whole clips.
        features: uint8 (B, 3, T, H, W) on `device` -> float (B, D).
        probabilities: uint8 (B, 3, T, H, W) -> class probabilities (B, K); None where it is no classifier.
        facts: what a result tells of it: own accuracy, file, how it was called.
        device: where it computes.
    """

    name: str
    hash: str
    width: int
    frames: bool
    features: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return features float32 (B, D) of clips uint8 (B, 3, T, H, W), on the CPU.

        Raises:
            BadInput: other pixels, or a network that returns something else than features.
        """
        self._check(pixels)
        found = self.features(pixels.to(self.device))
        if found.shape != (len(pixels), self.width):
            raise BadInput(
                f"network {self.name} returned {tuple(found.shape)} for {len(pixels)} clips; expected "
                f"({len(pixels)}, {self.width})."
            )
        return found.float().cpu()

    @torch.no_grad()
    def classify(self, pixels: Tensor) -> Tensor:
        """Return class probabilities float32 (B, K) of clips uint8 (B, 3, T, H, W), on the CPU.

        Raises:
            BadInput: it is no classifier.
        """
        if self.probabilities is None:
            raise BadInput(f"network {self.name} is no classifier, and the Inception score needs one: use another.")
        self._check(pixels)
        return self.probabilities(pixels.to(self.device)).float().cpu()

    def _check(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 5 or pixels.shape[1] != 3:
            raise BadInput(
                f"network {self.name} takes uint8 (B, 3, T, H, W) and got {pixels.dtype} {tuple(pixels.shape)}; "
                "floats in [0, 1] would give other features without a word."
            )


def label(metric: str, network: str) -> str:
    """Return what a number is called: "FVD" with the published network, "FVD[scenes-3d]" with any other."""
    return metric if PUBLISHED.get(metric) == network else f"{metric}[{network}]"
