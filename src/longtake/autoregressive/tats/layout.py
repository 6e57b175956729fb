"""How TATS writes a video as one line of tokens: [c_1 .. c_m, z_1 .. z_N], and what that line costs to predict.

One vocabulary holds both kinds: condition ids 0 .. Vc - 1, then the tokenizer's ids Vc .. Vc + K - 1. The video's tokens run
frame by frame, row by row, u = h w of them for a latent frame. A condition is

    none    one start token, with an id of its own              m = 1,    Vc = 1
    class   the number of a class                               m = 1,    Vc = classes
    text    UTF-8 bytes, an end token, padding                  m = 256,  Vc = 258
    audio   ids of a second tokenizer, of spectrograms          m, Vc = as that one makes them; see `hearing`

The published code starts an unconditional video with token 0 of the video, and reads text as CLIP's pieces of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.backbones.gpt import GPT
from longtake.errors import BadInput, BadSize, UnknownName, nearest

KINDS = ("none", "class", "text", "audio")
TEXT_SLOTS, TEXT_END, TEXT_PAD = 256, 256, 257


@dataclass(frozen=True)
class Layout:
    """Sizes of a line of tokens.

    Args:
        prefix: m, tokens of the condition.
        conditions: Vc, ids of conditions.
        codes: K, ids of the tokenizer.
        rows, columns: h, w of a latent frame.
    """

    prefix: int
    conditions: int
    codes: int
    rows: int
    columns: int

    @property
    def per_frame(self) -> int:
        """u, tokens of a latent frame."""
        return self.rows * self.columns

    @property
    def vocabulary(self) -> int:
        """Ids of both kinds together."""
        return self.conditions + self.codes

    @property
    def video(self) -> range:
        """The ids that stand for codes of the tokenizer."""
        return range(self.conditions, self.vocabulary)

    def write(self, ids: Tensor) -> Tensor:
        """The tokenizer's ids (B, t, h, w) -> tokens (B, t*u)."""
        if ids.shape[2:] != (self.rows, self.columns):
            raise BadSize(f"latent frames of {tuple(ids.shape[2:])} ids; expected {self.rows} rows of {self.columns}")
        return ids.flatten(1) + self.conditions

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, t*u) -> the tokenizer's ids (B, t, h, w)."""
        return (tokens - self.conditions).unflatten(1, (-1, self.rows, self.columns))

    def window_length(self, frames: int) -> int:
        """Positions of a GPT that predicts windows of so many latent frames; the last token is not read."""
        return self.prefix + frames * self.per_frame - 1

    def frames_of(self, gpt: GPT) -> int:
        """Latent frames that a GPT has positions for, as `window_length` counts them."""
        return (gpt.config.length + 1 - self.prefix) // self.per_frame


def layout(
    kind: str,
    *,
    codes: int,
    rows: int,
    columns: int,
    classes: int = 0,
    audio: tuple[int, int] = (0, 0),
) -> Layout:
    """The layout under a kind of condition.

    Args:
        kind: one of KINDS.
        codes, rows, columns: of the tokenizer's ids.
        classes: how many, for "class". audio: (tokens, codes) of a window's sound, for "audio".

    Raises:
        UnknownName: no such kind. BadInput: one without its sizes.
    """
    if kind not in KINDS:
        raise UnknownName(f"no condition is called '{kind}'.{nearest(kind, KINDS)}")
    prefix, ids = {"none": (1, 1), "class": (1, classes), "text": (TEXT_SLOTS, TEXT_PAD + 1), "audio": audio}[kind]
    if not (prefix and ids):
        raise BadInput(
            f"condition '{kind}' of {prefix} tokens and {ids} ids; say how many classes, or sounds, there are"
        )
    return Layout(prefix, ids, codes, rows, columns)


def text_tokens(prompts: Sequence[str]) -> Tensor:
    """Prompts -> int64 (B, 256): their bytes in UTF-8, the end token, padding. Raises BadInput for more than 255 bytes."""
    lines = torch.full((len(prompts), TEXT_SLOTS), TEXT_PAD)
    for line, prompt in zip(lines, prompts, strict=True):
        letters = [*prompt.encode(), TEXT_END]
        if len(letters) > TEXT_SLOTS:
            raise BadInput(f"a prompt of {len(letters) - 1} bytes ('{prompt[:40]}...'); at most {TEXT_SLOTS - 1}")
        line[: len(letters)] = torch.tensor(letters)
    return lines


def window_loss(gpt: GPT, layout: Layout, condition: Tensor, ids: Tensor, *, places: Tensor | None = None) -> Tensor:
    """Cross-entropy of a window's video tokens given the condition and the tokens before, its mean for each video (B,).

    Args:
        condition: int64 (B, m). ids: int64 (B, t, h, w), of the tokenizer.
        places: of the window in a larger grid, see `longtake.autoregressive.tats.windows.window_places`.
    """
    video = layout.write(ids)
    line = torch.cat([condition, video[:, :-1]], 1)
    return cross_entropy(gpt(line, places=places, rows=slice(layout.prefix - 1, None)), video)


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of logits (B, N, V) for tokens (B, N), its mean for each sequence (B,)."""
    return F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none").mean(1)
