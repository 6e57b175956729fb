"""Attention maps of chosen layers and steps, for looking at. Nothing that is computed changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.runtime.method import Here, Method
from longtake.runtime.nouns import AttnCall, Site


@dataclass(frozen=True)
class AttentionMaps(Method):
    """Notes the mean over the batch of softmax(q k^T) in the receipt, as `notes["maps"][(branch, step, site)]`.

    Args:
        layers, steps: numbers joined by "/", or "" for all.
        heads: keep one map for each head, (H, N, M), in place of their mean, (N, M).
        most: tokens of an attention, at most; larger ones are refused before they are held in memory.
    """

    name: ClassVar[str] = "attention-maps"

    layers: str = "0"
    steps: str = "0"
    heads: bool = False
    most: int = 4096

    def __post_init__(self) -> None:
        for name in ("layers", "steps"):
            if not all(part.isdecimal() for part in getattr(self, name).split("/") if part):
                raise BadInput(f"attention-maps: {name} is {getattr(self, name)!r}; write numbers as 0/3/7, or nothing")

    def rank(self) -> str:
        return "observer"

    def wants(self, site: Site) -> bool:
        return site.kind in ("attn.self", "attn.joint") and _among(site.layer, self.layers)

    def attend(self, here: Here, call: AttnCall, nxt: Callable[[AttnCall], Tensor]) -> Tensor:
        if _among(here.info.s, self.steps):
            tokens = max(call.q.shape[2], call.k.shape[2])
            if tokens > self.most:
                raise BadInput(
                    f"attention-maps: {tokens} tokens in layer {here.site.layer}; set most={tokens} to keep them"
                )
            key = (here.info.branch, here.info.s, here.site.name)
            here.receipt.notes.setdefault("maps", {})[key] = attention_map(call, self.heads).cpu()
            here.receipt.observed += 1
        return nxt(call)


def attention_map(call: AttnCall, heads: bool = False) -> Tensor:
    """softmax(q k^T) of a call, averaged over the batch and, unless `heads`, over the heads: float32 (N, M) or (H, N, M)."""
    scale = call.q.shape[-1] ** -0.5 if call.scale is None else call.scale
    scores = call.q.float() @ call.k.float().transpose(-1, -2) * scale
    if call.mask is not None:
        bias = call.mask
        scores = scores.masked_fill(~bias, float("-inf")) if bias.dtype == torch.bool else scores + bias
    seen = scores.softmax(-1).mean(0)
    return seen if heads else seen.mean(0)


def _among(number: int, listed: str) -> bool:
    return not listed or str(number) in listed.split("/")
