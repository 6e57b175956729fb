"""HybridStreamDiT: a video diffusion transformer of dual-stream blocks followed by single-stream blocks.

Architecture of Waver (arXiv 2508.15761). Video and text tokens form one sequence [video; text] and attend jointly in
every block. In the first M blocks each of the two streams has its own projections, norms, modulation and feed-forward
network; in the last N blocks they share all of them. One set of weights does text to video, image to video, first and
last frame, and continuation: the input is 16 noisy channels + 16 channels of given frames' latents (the latent of a
black image where nothing is given) + 4 mask channels (1 = given; one latent frame stands for 4 pixel frames).

The blocks are in `longtake.backbones.waver_blocks`. Where the paper is silent:
- Positions: rotary over (time, height, width), head features split as in Wan (arXiv 2503.20314); text tokens are not
  turned, which is position (0, 0, 0). Learned absolute tables, zero at the start, are added to the video tokens at the
  input. Each of the two can be switched off. The order of the text is the text encoder's business, unless
  `text_positions` gives the words a learned table too: small encoders say little about which colour is whose.
- A learned type vector is added to the tokens of each stream at the input.
- modulation="block": every block projects the time condition itself (per stream in dual blocks). "shared": one
  projection for the model, plus a learned table per block (and per stream in dual blocks), as in Wan.
- The black latent is one vector per channel, taken from the middle of an encoded black image.
- Padding tokens of the text are kept out of every attention by `text_mask`, so a prompt gives the same video however
  far it is padded.
"""

from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.backbones.waver_blocks import PARTS, BlockCondition, DualStreamBlock, SingleStreamBlock
from longtake.errors import BadInput, BadSize
from longtake.layers.linear import Linear
from longtake.layers.modulation import ModulationProjection, linear_fp32, norm_modulate
from longtake.layers.patching import patchify, unpatchify
from longtake.layers.positions import FactorisedPositions, timestep_features
from longtake.layers.rotary import rotary_table
from longtake.runtime import BlockForm, Blocks, Family, Part, Site, StepInfo, TokenGrid, latent_grid

ATTENDED = (Part("attention.attend", "attn.joint", "joint"),)
DUAL = BlockForm(
    (Part("attention", "attn.joint", "joint"), Part("video_ffn", "ffn"), Part("text_ffn", "ffn", "text")),
    ATTENDED,
    hidden="h",
    text="text",
    stream="joint",
)
SINGLE = replace(DUAL, parts=(Part("attention", "attn.joint", "joint"), Part("ffn", "ffn", "joint")))
FAMILY = Family(
    "Waver",
    (Blocks("blocks", lambda block: DUAL if isinstance(block, DualStreamBlock) else SINGLE),),
    lambda network, given: latent_grid(given["latents"], network.patch),
    text_at="last",
    latents="latents",
)
"""What methods must know of it."""


class HybridStreamDiT(ModelMixin, ConfigMixin):
    """Waver's denoiser.

    Args:
        latent_channels: channels of the latents, in and out.
        mask_channels: mask channels, equal to the tokenizer's stride in time.
        text_width: features of a text encoder state.
        width, heads: features of a token, attention heads; width/heads must be even when `rotary`.
        dual_blocks, single_blocks: M and N.
        mlp_ratio: features of the feed-forward network / width.
        patch: latent frames, rows and columns of one token.
        rotary, absolute: use rotary positions, use learned absolute positions.
        absolute_size: lengths of the absolute tables (frames, height, width); longer grids interpolate them.
        theta: base of the rotary frequencies.
        modulation: "block" or "shared", see the module's docstring.
        text_positions: length of a learned table added to the text tokens; 0 = none. Words past its end get its last row.
        pooled_text: add the projected mean of the text states to the time condition (not in the paper).
    """

    family = FAMILY
    _supports_gradient_checkpointing = True
    _no_split_modules = ["DualStreamBlock", "SingleStreamBlock"]
    _repeated_blocks = ["DualStreamBlock", "SingleStreamBlock"]

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        mask_channels: int = 4,
        text_width: int = 128,
        width: int = 256,
        heads: int = 4,
        dual_blocks: int = 2,
        single_blocks: int = 6,
        mlp_ratio: float = 4.0,
        patch: tuple[int, int, int] = (1, 1, 1),
        rotary: bool = True,
        absolute: bool = True,
        absolute_size: tuple[int, int, int] = (5, 8, 8),
        theta: float = 1e4,
        modulation: str = "shared",
        pooled_text: bool = False,
        text_positions: int = 0,
    ):
        super().__init__()
        if width % heads or (rotary and (width // heads) % 2):
            raise BadInput(f"width {width} with {heads} heads; heads must divide width into an even number of features")
        if modulation not in ("block", "shared"):
            raise BadInput(f"modulation {modulation!r} is unknown; use 'block' or 'shared'")
        if dual_blocks + single_blocks < 1:
            raise BadInput("0 blocks; dual_blocks + single_blocks must be at least 1")
        self.patch = patch = (patch[0], patch[1], patch[2])  # a saved configuration gives a list
        volume = patch[0] * patch[1] * patch[2]
        self.embed = Linear((2 * latent_channels + mask_channels) * volume, width)
        self.text_embed = nn.Sequential(Linear(text_width, width), nn.GELU(), Linear(width, width))
        self.type_vectors = nn.Parameter(torch.randn(2, width) * 0.02)  # video, text
        self.positions = FactorisedPositions(absolute_size, width) if absolute else None
        self.word_positions = nn.Parameter(torch.randn(text_positions, width) * 0.1) if text_positions else None
        self.time_embed = nn.Sequential(Linear(256, width), nn.SiLU(), Linear(width, width))
        self.pooled_embed = Linear(text_width, width) if pooled_text else None
        self.shared_modulation = ModulationProjection(width, PARTS) if modulation == "shared" else None

        n_layers, inner = dual_blocks + single_blocks, int(width * mlp_ratio)
        blocks: list[nn.Module] = []
        for layer in range(n_layers):
            name = f"blocks.{layer}.attention"
            site = Site("attn.joint", layer, n_layers, "joint", name, heads, width // heads)
            if layer < dual_blocks:
                blocks.append(DualStreamBlock(width, inner, site, modulation, last=layer == n_layers - 1))
            else:
                blocks.append(SingleStreamBlock(width, inner, site, modulation))
        self.blocks = nn.ModuleList(blocks)

        self.head_modulation = ModulationProjection(width, 2)
        self.head = Linear(width, latent_channels * volume)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("black_latents", torch.zeros(latent_channels, 1, 1, 1))
        self.gradient_checkpointing = False

    @torch.no_grad()
    def set_black_latents(self, tokenizer: Any, size: int = 64) -> None:
        """Store the latent of a black image, encoded by the tokenizer that this model is trained with.

        Args:
            tokenizer: a module with `encode(pixels (1, 3, 1, size, size) in [-1, 1]) -> latents (1, C, 1, h, w)`.
            size: pixels on a side; the latent in the middle is taken, away from what padding does at the edges.
        """
        weight = next(tokenizer.parameters())
        black = tokenizer.encode(torch.full((1, 3, 1, size, size), -1.0, device=weight.device, dtype=weight.dtype))
        middle = black[0, :, :1, black.shape[3] // 2, black.shape[4] // 2]
        self.black_latents.copy_(middle[..., None, None])

    def empty_condition(self, latents: Tensor) -> Tensor:
        """Condition channels with no frame given, for latents (B, C, T, H, W): black latents, then a mask of zeros."""
        b, _, *size = latents.shape
        black = self.black_latents.to(latents).expand(b, -1, *size)
        return torch.cat([black, black.new_zeros(b, self.config.mask_channels, *size)], dim=1)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor | None = None,
        condition: Tensor | None = None,
        *,
        info: StepInfo | None = None,
        states_after: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the velocity, noise - data.

        Args:
            latents: (B, C, T, H, W), noisy.
            timestep: (B,) or a scalar, sigma * 1000.
            text: (B, L, text_width), states of the text encoder.
            text_mask: (B, L) bool, True = a token of the prompt, False = padding; None = no padding.
            condition: (B, C + mask_channels, T, H, W), latents of given frames (black latents elsewhere) and their
                mask (1 = given). None = no frame given.
            info: which forward of which run; for methods only, it never changes what is computed here.
            states_after: also return the video tokens behind so many blocks (1 to their number), for a loss on them.

        Returns:
            (B, C, T, H, W), in the dtype of `latents`; with `states_after` also the tokens (B, N, width).

        Raises:
            BadSize: the patch does not divide the latents.
        """
        b, _, *size = latents.shape
        if any(n % p for n, p in zip(size, self.patch, strict=True)):
            raise BadSize(f"latents of {tuple(size)} cannot be cut into patches of {self.patch}; use multiples of them")
        grid = TokenGrid(*(n // p for n, p in zip(size, self.patch, strict=True)))
        if condition is None:
            condition = self.empty_condition(latents)

        h = self.embed(patchify(torch.cat([latents, condition.to(latents.dtype)], dim=1), self.patch))
        h = h + self.type_vectors[0]
        if self.positions is not None:
            h = h + self.positions(grid)
        words = self.text_embed(text) + self.type_vectors[1]
        if self.word_positions is not None:
            places = torch.arange(text.shape[1], device=text.device).clamp_max(len(self.word_positions) - 1)
            words = words + self.word_positions[places]
        cond = self._block_condition(timestep.expand(b), text, text_mask, grid, info)

        states = h
        for number, block in enumerate(self.blocks, start=1):
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                h, words = self._gradient_checkpointing_func(block, h, words, cond, grid)
            else:
                h, words = block(h, words, cond, grid)
            states = h if number == states_after else states

        shift, scale = self.head_modulation(cond.total).unsqueeze(2).unbind(1)
        velocity = self.head(norm_modulate(h, shift, scale))
        velocity = unpatchify(velocity, grid, self.patch).to(latents.dtype)
        return velocity if states_after is None else (velocity, states)

    def _block_condition(
        self, timestep: Tensor, text: Tensor, text_mask: Tensor | None, grid: TokenGrid, info: StepInfo | None
    ) -> BlockCondition:
        time = self.embed_time(timestep)
        rest = None
        if self.pooled_embed is not None:
            keep = torch.ones_like(text[..., :1]) if text_mask is None else text_mask[..., None].to(text.dtype)
            rest = linear_fp32(self.pooled_embed, (text * keep).sum(1) / keep.sum(1).clamp(min=1))
        total = time if rest is None else time + rest
        shared = None if self.shared_modulation is None else self.shared_modulation(total)
        rotary = None
        if self.config.rotary:
            head_dim = self.config.width // self.config.heads
            extra, device = text.shape[1], text.device
            rotary = rotary_table(grid, head_dim, extra=extra, theta=self.config.theta, device=device)
        mask = None
        if text_mask is not None:
            video = text_mask.new_ones(text_mask.shape[0], grid.tokens)
            mask = torch.cat([video, text_mask], dim=1)[:, None, None].bool()
        return self.prepare(BlockCondition(time, rest, shared, rotary, mask, info), timestep, grid)

    def embed_time(self, timestep: Tensor) -> Tensor:
        """Timesteps (B,), 0 to 1000, embedded: (B, D) float32."""
        time = timestep_features(timestep)
        for layer in self.time_embed:
            time = linear_fp32(layer, time) if isinstance(layer, nn.Linear) else layer(time)
        return time

    def prepare(self, cond: BlockCondition, timestep: Tensor, grid: TokenGrid) -> BlockCondition:
        """Add what the blocks of a converted network need besides: nothing here."""
        return cond
