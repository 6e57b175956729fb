"""Windows of a TATS transformer that slide over a longer, or a larger, video.

A window's positions begin at 0 wherever it is, and the condition stands in front of it again; keys and values are
therefore computed anew in each window.
"""

from collections.abc import Iterator
from itertools import groupby, product

import torch
from torch import Tensor

from longtake.autoregressive.tats.layout import Layout
from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import Choice, OnToken, sample_tokens
from longtake.errors import BadInput
from longtake.layers.positions import box_places


class Tally:
    """Counts the tokens of a whole video for whoever watches.

    Args:
        total: tokens in all. told: called as told(done, total); None = nobody.
    """

    def __init__(self, total: int, told: OnToken | None) -> None:
        self.done, self.total, self.told = 0, total, told

    def of(self, sequences: int) -> OnToken | None:
        """What a sampler of so many sequences at once is to call after each of its tokens."""
        if self.told is None:
            return None
        told = self.told

        def add(_: int, __: int) -> None:
            self.done += sequences
            told(self.done, self.total)

        return add


def slide(
    gpt: GPT,
    layout: Layout,
    condition: Tensor,
    noise: Tensor,
    *,
    choice: Choice,
    first: Choice | None = None,
    context: int | None = None,
    tally: Tally | None = None,
) -> Tensor:
    """A video of any length, one latent frame after another, each given the condition and the last few frames.

    Args:
        gpt: trained with `window_loss` on windows of `layout.frames_of(gpt)` latent frames.
        condition: int64 (B, m); or (B, S, m), one for each of the S windows of the video by the frame that it begins with
            (sound). A window then begins at S - 1 at the latest, and looks back at more frames there.
        noise: (B, t*u) in [0, 1), one number for each token to be drawn.
        choice: how tokens are drawn. first: how those of the first `context` frames are; None = the same.
        context: p, latent frames that are looked back at, 1 to window - 1; None = window - 1. The published sampler takes 1.
        tally: counts the tokens.

    Returns:
        Ids of the tokenizer, int64 (B, t, h, w).

    Raises:
        BadInput: a context that does not fit the window, or noise for no whole number of frames.
    """
    u, window = layout.per_frame, layout.frames_of(gpt)
    context = max(1, window - 1) if context is None else context
    frames, rest = divmod(noise.shape[1], u)
    if not 1 <= context <= max(1, window - 1):
        raise BadInput(f"context {context} of a window of {window} latent frames; expected 1 to {max(1, window - 1)}")
    if rest or not frames:
        raise BadInput(f"noise for {noise.shape[1]} tokens; expected a multiple of the {u} tokens of a latent frame")
    told = None if tally is None else tally.of(len(condition))

    def sampled(line: Tensor, noise: Tensor, choice: Choice) -> Tensor:
        return sample_tokens(gpt, line, noise, choice=choice, ids=layout.video, on_token=told)

    last = frames if condition.ndim == 2 else condition.shape[1] - 1
    opening = min(context, frames)
    video = [sampled(window_condition(condition, 0), noise[:, : opening * u], first or choice)]
    for frame in range(opening, frames):
        begin = min(frame - context, last)
        past = torch.cat(video, 1)[:, begin * u :]
        line = torch.cat([window_condition(condition, begin), past], 1)
        video.append(sampled(line, noise[:, frame * u : (frame + 1) * u], choice))
    return layout.read(torch.cat(video, 1))


def window_condition(condition: Tensor, begin: int) -> Tensor:
    """The condition (B, m) of the window that begins at a latent frame, of one for all (B, m) or one for each (B, S, m)."""
    return condition if condition.ndim == 2 else condition[:, begin]


def window_places(layout: Layout, grid: tuple[int, int, int], start: tuple[int, int, int], frames: int) -> Tensor:
    """Places, in the grid that a GPT has a table of, of a window's tokens: int64 (m + frames*u - 1,).

    Each position is given the place of the token that it predicts, as published: the last token of the condition has that
    of the window's first token; the tokens of the condition before it have none.

    Args:
        grid: (frames, height, width) of the table.
        start: the window's first frame, row and column in it.
        frames: latent frames of the window, of `layout.rows` by `layout.columns` tokens.
    """
    places = box_places(grid, start, (frames, layout.rows, layout.columns))
    return torch.cat([places.new_full((layout.prefix - 1,), -1), places])


def slide_in_space(
    gpt: GPT,
    layout: Layout,
    condition: Tensor,
    noise: Tensor,
    grid: tuple[int, int, int],
    *,
    choice: Choice,
    centre: tuple[int, int, int] | None = None,
    tally: Tally | None = None,
) -> Tensor:
    """A video of a larger token grid than the windows that the GPT was trained on, token by token.

    Each token is given those before it in a window that is centred on it, and pushed back inside where it would stick out.
    A window's places are those of its rows and columns in the picture, and count from 0 in time. Tokens in a row that
    share a window are drawn from one cache.

    Args:
        gpt: trained on windows of `layout.rows` by `layout.columns` tokens, with a table of places of the whole picture.
        noise: (B, T*H*W) in [0, 1).
        grid: (T, H, W) of the video; H and W those of the table.
        centre: frame, row and column of the window at which the token is; None = all but the last frame in time, and the
            middle in space.
        condition, choice, tally: as `slide`.

    Returns:
        Ids of the tokenizer, int64 (B, T, H, W).
    """
    size = layout.frames_of(gpt), layout.rows, layout.columns
    table = tuple(gpt.config.grid or ())
    if table[1:] != grid[1:] or any(whole < part for whole, part in zip(grid, size, strict=True)):
        raise BadInput(f"a video of {grid} tokens by windows of {size} and a table of places {table}; they do not fit")
    centre = (max(0, size[0] - 1), size[1] // 2, size[2] // 2) if centre is None else centre
    told = None if tally is None else tally.of(len(condition))
    video = condition.new_zeros(len(condition), *grid)
    drawn = 0
    for start, local, run in _runs(grid, size, centre):
        window = tuple(slice(first, first + count) for first, count in zip(start, size, strict=True))
        past = video[(slice(None), *window)].flatten(1)[:, :local]
        places = window_places(layout, table, (0, start[1], start[2]), size[0])  # pyright: ignore[reportArgumentType]
        length = layout.prefix + local + run - 1
        made = sample_tokens(
            gpt,
            torch.cat([window_condition(condition, start[0]), past], 1),
            noise[:, drawn : drawn + run],
            choice=choice,
            ids=layout.video,
            places=places[:length],
            on_token=told,
        )
        video.view(len(condition), -1)[:, drawn : drawn + run] = made
        drawn += run
    return video - layout.conditions


def _runs(
    grid: tuple[int, int, int], size: tuple[int, int, int], centre: tuple[int, int, int]
) -> Iterator[tuple[tuple[int, int, int], int, int]]:
    """Tokens of a grid in order, in runs that lie behind one another in one window: (its start, place in it, tokens)."""

    def window(numbered: tuple[int, tuple[int, ...]]) -> tuple[tuple[int, ...], int]:
        number, token = numbered
        start = tuple(
            max(0, min(at - middle, whole - part))
            for at, middle, whole, part in zip(token, centre, grid, size, strict=True)
        )
        t, i, j = (at - first for at, first in zip(token, start, strict=True))
        return start, (t * size[1] + i) * size[2] + j - number

    first = 0
    for (start, offset), run in groupby(enumerate(product(*map(range, grid))), window):
        count = sum(1 for _ in run)
        yield start, first + offset, count  # pyright: ignore[reportReturnType]
        first += count
