"""Tokens from a GPT, one by one: temperature, top-k, top-p, and noise that belongs to each sequence.

A token is drawn by one uniform number: the place where it falls on the cumulated probabilities, most likely token first.
All numbers of a sequence are drawn before its first token, from a generator of its own, so a sequence comes out the same
alone and in a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.backbones.gpt import GPT, KVCache
from longtake.errors import BadInput

OnToken = Callable[[int, int], None]
"""Called as on_token(done, tokens) after each token of a batch."""


@dataclass(frozen=True)
class Choice:
    """How a token is chosen from its logits.

    Args:
        temperature: logits are divided by it; 0 takes the most likely token.
        top_k: only so many of the most likely tokens are drawn from; 0 = all.
        top_p: of these, the most likely ones that together have this probability, the one that reaches it included
            (nucleus, arXiv 1904.09751); 1 = all.

    Raises:
        BadInput: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.temperature < float("inf") and self.top_k >= 0 and 0 < self.top_p <= 1):
            raise BadInput(
                f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}; expected a temperature and a "
                "top_k of at least 0, and top_p in (0, 1]"
            )


def choose(logits: Tensor, noise: Tensor, choice: Choice) -> Tensor:
    """Choose a token for each row: logits (B, V) and uniform numbers (B,) in [0, 1) -> int64 (B,)."""
    if choice.temperature == 0:
        return logits.argmax(-1)
    likely, order = logits.float().topk(min(choice.top_k or logits.shape[-1], logits.shape[-1]))
    cumulated = (likely / choice.temperature).softmax(-1).cumsum(-1)
    before = cumulated.roll(1, -1).index_fill(-1, torch.zeros(1, dtype=torch.long, device=logits.device), 0.0)
    last = (before <= choice.top_p).sum(-1, keepdim=True) - 1  # the tokens that are kept are the first ones
    reached = noise[:, None] * cumulated.gather(-1, last)
    place = (cumulated <= reached).sum(-1, keepdim=True).minimum(last)
    return order.gather(-1, place).squeeze(-1)


def draw_noise(generators: Sequence[torch.Generator], tokens: int) -> Tensor:
    """Uniform numbers (B, tokens) in [0, 1), one row from each generator, which are on the CPU."""
    return torch.stack([torch.rand(tokens, generator=generator) for generator in generators])


def sample_tokens(
    gpt: GPT,
    prompt: Tensor,
    noise: Tensor,
    *,
    choice: Choice,
    ids: range,
    positions: Tensor | None = None,
    places: Tensor | None = None,
    mask: Tensor | None = None,
    read: int = -1,
    on_token: OnToken | None = None,
) -> Tensor:
    """Go on from a prompt, token by token; every token is computed once.

    Args:
        gpt: in evaluation mode.
        prompt: int64 (B, M), M >= 1.
        noise: (B, N) in [0, 1), see `draw_noise`; N tokens are drawn.
        choice: how.
        ids: the tokens that may be drawn, in a row; all others are out of the question whatever their logits.
        positions, places: int64 (M + N - 1,), of the prompt's tokens and of the new ones behind them, as in `GPT.states`
            (the last one drawn is not read any more).
        mask: bool (M, M), what the tokens of the prompt see of one another; None = causal. New tokens see everything.
        read: the prompt's token that is followed by the first new one.
        on_token: told after each token.

    Returns:
        int64 (B, N).
    """
    with torch.inference_mode():  # a sixth of the time less than without gradients alone, where a token is little work
        made = _drawn(gpt, prompt, noise, choice, ids, (positions, places), mask, read, on_token)
    return made.clone()  # an ordinary tensor


def _drawn(
    gpt: GPT,
    prompt: Tensor,
    noise: Tensor,
    choice: Choice,
    ids: range,
    lines: tuple[Tensor | None, Tensor | None],
    mask: Tensor | None,
    read: int,
    on_token: OnToken | None,
) -> Tensor:
    (batch, given), tokens = prompt.shape, noise.shape[1]
    noise = noise.to(prompt.device)
    cache = KVCache(gpt, batch, given + tokens - 1)
    made = prompt.new_empty(batch, tokens)
    at = [None if line is None else line.to(prompt.device) for line in lines]

    def states(new: Tensor, mask: Tensor | None = None) -> Tensor:
        part = slice(cache.length, cache.length + new.shape[1])
        where = [None if line is None else line[part] for line in at]
        return gpt.states(new, positions=where[0], places=where[1], mask=mask, cache=cache)

    state = states(prompt, mask)[:, read]
    for i in range(tokens):
        logits = gpt.head(state)[:, ids.start : ids.stop]
        made[:, i] = ids.start + choose(logits, noise[:, i], choice)
        if on_token is not None:
            on_token(i + 1, tokens)
        if i + 1 < tokens:
            state = states(made[:, i : i + 1])[:, 0]
    return made
