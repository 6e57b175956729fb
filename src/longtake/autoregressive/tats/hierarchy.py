"""The time-sensitive hierarchy of TATS: one transformer for sparse key frames, one that fills the gaps between them.

GPT-A writes every s-th latent frame (s = 4) by a sliding window. GPT-B is given two of them, F_0 and F_s, and writes those
between; the gaps do not depend on one another. What may look at what, by place in the line [c, F_0, F_1 .. F_s]:

    ends E = {c, F_0, F_s}:   every row sees every column of E, and rows of E see nothing else
    middle F_1 .. F_{s-1}:    a row sees middle columns up to itself

If rows of F_0 or F_s saw the middle, the middle would leak through them to its own beginning. The published code differs
in three ways, which do not agree with how its GPT-B is trained (tested here): it fills a gap with the top left corner of
the mask, gives F_s positions one too low, and reads the first token off the last row of F_s. Here the line is given with
the mask and positions of training, ends first, and the first token is read off the last row of F_0. The loss is that of
the middle alone, because the ends see themselves.
"""

from dataclasses import replace

import torch
from torch import Tensor

from longtake.autoregressive.tats.layout import Layout, cross_entropy
from longtake.autoregressive.tats.windows import Tally, slide
from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import Choice, sample_tokens
from longtake.errors import BadInput

GAPS_AT_ONCE = 64


def gap_length(layout: Layout, spacing: int) -> int:
    """Positions of a GPT that fills gaps: the condition, both ends and all between."""
    return layout.prefix + (spacing + 1) * layout.per_frame


def gap_mask(layout: Layout, spacing: int) -> Tensor:
    """Who sees whom in [c, F_0 .. F_s]: bool (N, N), N = `gap_length`, True = may look."""
    place = torch.arange(gap_length(layout, spacing))
    middle = (place >= layout.prefix + layout.per_frame) & (place < layout.prefix + spacing * layout.per_frame)
    return ~middle | (middle[:, None] & (place <= place[:, None]))


def gap_loss(gpt: GPT, layout: Layout, condition: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of the middle frames given the condition and both ends, its mean for each video (B,).

    Args:
        condition: int64 (B, m). ids: int64 (B, s + 1, h, w), of the tokenizer, in a row in time.
    """
    spacing, u = ids.shape[1] - 1, layout.per_frame
    video = layout.write(ids)
    line, mask = torch.cat([condition, video], 1), gap_mask(layout, spacing).to(ids.device)
    before = layout.prefix + u - 1  # the last token of F_0 predicts the first of F_1
    logits = gpt(line, mask=mask, rows=slice(before, before + (spacing - 1) * u))
    return cross_entropy(logits, video[:, u : spacing * u])


def fill_gaps(
    gpt: GPT,
    layout: Layout,
    condition: Tensor,
    before: Tensor,
    after: Tensor,
    noise: Tensor,
    *,
    choice: Choice,
    tally: Tally | None = None,
) -> Tensor:
    """The latent frames between two.

    Args:
        gpt: trained with `gap_loss`.
        condition: int64 (G, m), of each gap.
        before, after: ids int64 (G, h, w), F_0 and F_s.
        noise: (G, (s - 1) * u) in [0, 1).
        choice, tally: as `windows.slide`.

    Returns:
        Ids int64 (G, s - 1, h, w).
    """
    m, u, middle = layout.prefix, layout.per_frame, noise.shape[1]
    place = torch.arange(gpt.config.length)  # the published GPT-B has none for the last token of F_s: it is left out
    far = layout.write(after[:, None])[:, : len(place) - (m + u + middle)]
    line = torch.cat([condition, layout.write(before[:, None]), far], 1)
    ends = len(line[0])
    made = sample_tokens(
        gpt,
        line,
        noise,
        choice=choice,
        ids=layout.video,
        # ends first, each at the position that training gives it; then the middle
        positions=torch.cat([place[: m + u], place[m + u + middle :], place[m + u : m + u + middle]]),
        mask=torch.ones(ends, ends, dtype=torch.bool, device=line.device),
        read=m + u - 1,
        on_token=None if tally is None else tally.of(len(line)),
    )
    return layout.read(made)


def key_frames(frames: int, spacing: int) -> int:
    """Key frames, spacing apart, that reach over so many latent frames."""
    return -(-(frames - 1) // spacing) + 1


def hierarchical(
    keys: GPT,
    gaps: GPT,
    layout: Layout,
    condition: Tensor,
    noise: Tensor,
    *,
    spacing: int,
    choice: Choice,
    first: Choice | None = None,
    context: int | None = None,
    of_gaps: Tensor | None = None,
    at_once: int = GAPS_AT_ONCE,
    tally: Tally | None = None,
) -> Tensor:
    """A video of s (M - 1) + 1 latent frames: M key frames by a sliding window, then all gaps, many at once.

    Args:
        keys, gaps: GPT-A and GPT-B, of one layout but for the length of the condition.
        condition: int64 (B, m), or one for each window of key frames, as `windows.slide`.
        noise: (B, (s (M - 1) + 1) * u) in [0, 1): first that of the key frames, then that of the gaps in order.
        spacing: s.
        choice, first, context, tally: as `windows.slide`; first and context of the key frames.
        of_gaps: int64 (B, M - 1, m'), the condition of each gap; None = the one for all.
        at_once: gaps that are filled as one batch; more take more memory and less time.

    Returns:
        Ids int64 (B, s (M - 1) + 1, h, w).

    Raises:
        BadInput: noise for another number of frames, or conditions for each window without those for each gap.
    """
    if condition.ndim == 3 and of_gaps is None:
        raise BadInput("windows of key frames have conditions of their own, and gaps have none: give of_gaps")
    u, batch = layout.per_frame, len(condition)
    count, rest = divmod(noise.shape[1] - u, spacing * u)
    if rest or count < 0:
        raise BadInput(f"noise for {noise.shape[1]} tokens; expected {u} * ({spacing} * (key frames - 1) + 1)")
    split = (count + 1) * u
    sparse = slide(keys, layout, condition, noise[:, :split], choice=choice, first=first, context=context, tally=tally)
    if not count:
        return sparse
    before, after = sparse[:, :-1].flatten(0, 1), sparse[:, 1:].flatten(0, 1)
    owners = condition.repeat_interleave(count, 0) if of_gaps is None else of_gaps.flatten(0, 1)
    between = replace(layout, prefix=owners.shape[1])
    parts = zip(
        *(x.split(at_once) for x in (owners, before, after, noise[:, split:].reshape(batch * count, -1))), strict=True
    )
    made = [fill_gaps(gaps, between, *part, choice=choice, tally=tally) for part in parts]
    filled = torch.cat(made).unflatten(0, (batch, count))
    dense = torch.cat([sparse[:, :-1, None], filled], 2).flatten(1, 2)  # a key frame, then its gap
    return torch.cat([dense, sparse[:, -1:]], 1)
