"""GPT: a transformer that predicts each next token from those before it, with learned absolute positions.

Pre-norm blocks of GPT-2 (Radford et al., 2019), as the token-by-token video generators use them; the published setting
of TATS (arXiv 2204.03638) is 24 blocks of width 1024 with 16 heads:

    x_0 = E[token] + P[position] (+ G[place]);   x += A(LN(x));   x += MLP(LN(x));   logits = LN(x) W

What sees what is a mask that the caller may replace; where a token is in the sequence (`positions`) and in a video's
grid (`places`) are numbers that the caller may choose, so that a window can be cut from anywhere, sequences be packed
into one row, and tokens behind a gap be given before it. Keys and values are computed once for each token and kept in
a `KVCache`, which is an object of the caller's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.errors import BadInput, BadSize
from longtake.layers.attention import FeedForward
from longtake.layers.linear import Linear
from longtake.layers.token_masks import causal_mask
from longtake.runtime import AttendPoint, AttnCall, BlockForm, Blocks, Family, Part, Site, TokenGrid


class KVCache:
    """Keys and values of the tokens that a GPT has seen, in memory that is taken once.

    They hold for the positions that the tokens were given: a window that moves needs a new cache. No gradient passes.

    Args:
        gpt: whose they are.
        batch: sequences. capacity: tokens of each, at most.
    """

    def __init__(self, gpt: "GPT", batch: int, capacity: int) -> None:
        config, like = gpt.config, gpt.positions
        shape = (config.depth, batch, config.heads, capacity, config.width // config.heads)
        self.keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens' k and v (B, H, N, d) of a layer behind the past; return past and new together.

        `length` moves on when the network is done with all layers.
        """
        end = self.length + k.shape[2]
        if end > self.keys.shape[3]:
            raise BadSize(f"{end} tokens in a cache made for {self.keys.shape[3]}; make it larger")
        keys, values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        keys[:, :, self.length :] = k.detach()
        values[:, :, self.length :] = v.detach()
        return keys, values


class SelfAttention(nn.Module):
    """Self-attention of (B, N, D) under a mask, with the keys and values of the past if there is a cache."""

    def __init__(self, width: int, site: Site) -> None:
        super().__init__()
        self.heads, self.layer = site.heads, site.layer
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.attend = AttendPoint(site)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """x (B, N, D) -> the same."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        call = AttnCall(q, k, v, TokenGrid(1, 1, x.shape[1]), mask=mask)
        return self.out(self.attend(call).transpose(1, 2).flatten(2))


class GPTBlock(nn.Module):
    """x += A(LN(x)); x += MLP(LN(x)), with an MLP of four times the width."""

    def __init__(self, width: int, site: Site) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, site)
        self.ffn = FeedForward(width, 4 * width)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """x (B, N, D) -> the same."""
        x = x + self.attention(self.attention_norm(x), mask, cache)
        return x + self.ffn(self.ffn_norm(x))


class GPT(ModelMixin, ConfigMixin):
    """The network.

    Args:
        vocabulary: numbers of tokens that it reads, 0 to vocabulary - 1; 0 for one that reads vectors alone.
        length: positions that it has learned.
        width, depth, heads: features of a token, blocks, heads of each attention.
        outputs: features of the head; None = a logit for each token of the vocabulary.
        grid: frames, height and width of a video's token grid, to learn a table of places in it beside the positions;
            None = no such table.

    Raises:
        BadInput: heads that do not divide the width, or neither a vocabulary nor outputs.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks = ["GPTBlock"]
    family = Family(
        name="GPT",
        stacks=(Blocks("blocks", BlockForm((Part("attention", "attn.self"), Part("ffn", "ffn")), hidden="x")),),
        grid=lambda network, given: TokenGrid(1, 1, given["tokens"].shape[1]),
    )

    @register_to_config
    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        outputs: int | None = None,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise BadInput(f"heads {heads} do not divide width {width}; choose a number that does")
        if not (vocabulary or outputs):
            raise BadInput("vocabulary is 0 and outputs is not given; say how many features the head has")
        self.embed = nn.Embedding(vocabulary, width) if vocabulary else None
        self.positions = nn.Parameter(torch.zeros(length, width))
        self.places = nn.Parameter(torch.zeros(*grid, width)) if grid else None
        self.blocks = nn.ModuleList(
            GPTBlock(width, Site("attn.self", i, depth, "video", f"blocks.{i}.attention.attend", heads, width // heads))
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, vocabulary if outputs is None else outputs, bias=False)
        self.gradient_checkpointing = False  # set by diffusers' enable_gradient_checkpointing
        self.apply(_start)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        places: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        rows: slice | None = None,
    ) -> Tensor:
        """Logits (B, N, outputs) of what follows each token, or those in `rows`; other arguments as `states`."""
        states = self.states(tokens, positions=positions, places=places, mask=mask, cache=cache)
        return self.head(states if rows is None else states[:, rows])

    def states(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        places: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """States (B, N, D) of the tokens behind the last norm, of which `head` makes logits.

        Args:
            tokens: int64 (B, N); or vectors (B, N, D), taken as they are in place of embeddings.
            positions: int64 (N,) or (B, N), the row of the table of positions for each token; None = from the cache's
                length on, 0 without one.
            places: int64 (N,) or (B, N), the number of a place in the grid for each token, frame by frame and row by
                row; -1 for none. None = none for all.
            mask: bool, broadcastable to (B, 1, N, M) with M tokens in the cache and these behind them, True = may be
                attended; None = each token sees those before it and itself.
            cache: of the tokens before these; these are added to it.

        Raises:
            BadSize: more tokens than positions. BadInput: places without a grid, or ids without a vocabulary.
        """
        n, past = tokens.shape[1], 0 if cache is None else cache.length
        if positions is None:
            if past + n > self.config.length:
                raise BadSize(f"{past + n} tokens, and this GPT has {self.config.length} positions; give fewer")
            at = self.positions[past : past + n]
        else:
            at = self.positions[positions]
        x = self._embedded(tokens) + at
        if places is not None:
            x = x + self._placed(places)
        if mask is None and n > 1:
            mask = causal_mask(n, past, x.device)
        for block in self.blocks:
            x = self._run(block, x, mask, cache)
        if cache is not None:
            cache.length += n
        return self.norm(x)

    def _embedded(self, tokens: Tensor) -> Tensor:
        if tokens.is_floating_point():
            return tokens
        if self.embed is None:
            raise BadInput("tokens are numbers, and this GPT has no vocabulary; give vectors (B, N, D)")
        return self.embed(tokens)

    def _placed(self, places: Tensor) -> Tensor:
        if self.places is None:
            raise BadInput("places were given, and this GPT has no table of them; make one with grid=(T, H, W)")
        known = (places >= 0).unsqueeze(-1)
        return self.places.flatten(0, 2)[places.clamp_min(0)] * known

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Any:
        if self.gradient_checkpointing and cache is None and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, x, mask)  # pyright: ignore[reportCallIssue]
        return block(x, mask, cache)


def _start(module: nn.Module) -> None:
    """Weights from N(0, 0.02^2) and biases of 0; tables of positions begin at 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
