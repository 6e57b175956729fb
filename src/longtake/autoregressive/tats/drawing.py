"""How the tokens of a TATS video are drawn: what a pipeline's folder keeps, and a call may change."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from longtake.backbones.gpt_sampling import Choice
from longtake.errors import BadInput, nearest


@dataclass(frozen=True)
class Drawing:
    """How a video's tokens are drawn; a folder keeps its own.

    Args:
        temperature, top_k, top_p: as `longtake.backbones.gpt_sampling.Choice`; the published values are 1, 2048 and 0.8.
        first_top_k, first_top_p: of the first window, where they differ; None = the same.
        context: latent frames that the sliding window looks back at; None = all of it but one. Published: 1.

    Raises:
        BadInput: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 2048
    top_p: float = 0.8
    first_top_k: int | None = None
    first_top_p: float | None = None
    context: int | None = None

    def __post_init__(self) -> None:
        _ = self.choice, self.first  # checks their ranges

    @property
    def choice(self) -> Choice:
        """Of all tokens but those of the first window."""
        return Choice(self.temperature, self.top_k, self.top_p)

    @property
    def first(self) -> Choice:
        """Of the first window."""
        top_k = self.top_k if self.first_top_k is None else self.first_top_k
        return Choice(self.temperature, top_k, self.top_p if self.first_top_p is None else self.first_top_p)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Drawing":
        """From names and values. Raises BadInput for a name that is none of the above."""
        known = [one.name for one in fields(cls)]
        for name in given or {}:
            if name not in known:
                raise BadInput(f"tokens cannot be drawn by '{name}'.{nearest(name, known)}")
        return cls(**(given or {}))
