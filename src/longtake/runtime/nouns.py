"""Plain records: where tokens are (TokenGrid), when a call happens (StepInfo), what attends to what (AttnCall)."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class TokenGrid(NamedTuple):
    """The box of video tokens at one place: tokens run frame by frame, then row by row, then column by column."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Number of video tokens, frames * height * width."""
        return self.frames * self.height * self.width


@dataclass(frozen=True)
class StepInfo:
    """Which forward of which run this is.

    Args:
        run: number of the sampling run.
        s: index of the sampler step, 0 is the noisiest.
        S: number of steps, None when unknown.
        t: raw timestep that the model is given.
        noise: t / num_train_timesteps in [0, 1]; 1 is pure noise.
        sigma: the scheduler's noise level, None when it has none.
        branch: which forward inside the step: "cond", "uncond", "cond_uncond" (batched guidance), ...
        model: which network of the pipeline: "transformer", "transformer_2".
        chunk: index of the window in long video.
        extra: a call beside those of the ordinary steps, that a method of the sampler asks for.
    """

    run: int
    s: int
    S: int | None
    t: float
    noise: float
    sigma: float | None
    branch: str
    model: str = "transformer"
    chunk: int = 0
    extra: bool = False


@dataclass(frozen=True)
class Site:
    """One place in one model.

    Args:
        kind: "model", "block", "attn.self", "attn.cross", "attn.joint", "ffn" or "linear".
        layer: index in execution order, of `n_layers`.
        stream: "video", "text", "joint", "spatial" or "temporal".
        name: dotted module name.
        heads, head_dim: of the attention; 0 where there is none.
    """

    kind: str
    layer: int
    n_layers: int
    stream: str
    name: str
    heads: int = 0
    head_dim: int = 0


@dataclass
class AttnCall:
    """One attention as it is about to be computed, after norms and rotary positions.

    Args:
        q, k, v: (B, H, S, D), where S = grid.tokens + text_len in a joint attention.
        grid: token box of the video tokens at this site.
        text_len: number of text tokens in the sequence, padding included.
        text_at: where they are: "none", "first" or "last".
        mask: bool, broadcastable to (B, H, S, S), True = may be attended; None = all.
        scale: factor on q @ k^T; None = 1/sqrt(D).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grid: TokenGrid
    text_len: int = 0
    text_at: str = "none"
    mask: Tensor | None = None
    scale: float | None = None
