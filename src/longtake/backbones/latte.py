"""Latte: a latent video diffusion transformer whose attention is factorised over space and time.

Paper: "Latte: Latent Diffusion Transformer for Video Generation", arXiv 2401.03048. One class holds every switch of its
study. Blocks are those of `longtake.backbones.latte_blocks`; h is (B, F, N, D), S and T a block over space and time,
`temp` the table of positions over time, which enters the stream once:

    variant 1   interleaved         for k: h = S_k(h); if k == 0: h += temp; h = T_k(h)
    variant 2   late fusion         all S_k; h += temp; all T_k
    variant 3   serial in a block   h += temp; for k: attention over space, then over time, then one MLP
    variant 4   parallel in a block h += temp; for k: both on the same input, summed, then one MLP
    variant joint                   h += temp; full attention over (time, height, width); not in the paper
    variant spatial                 1 without attention over time: the control of the study

Condition: time embedding + class embedding (or + projected text states, added in the blocks and not in the final
layer), by adaLN-Zero in every block (`inject="s_adaln"`), or as two more tokens beside the patches of every frame
(`inject="all_tokens"`). With `text="cross"` the network is Latte-1, the text-to-video model: adaLN-single, and
cross-attention to T5 states behind the attention over space (layout of diffusers' `LatteTransformer3DModel`).

Joint training with images: the last `images` frames of the input are single images. Attention over time, and positions
in time, see the clip's frames only.

Where the paper is silent:
- V3 and V4: one adaLN for both attentions, see `latte_blocks`; their presets have 23/28 of V1's depth, rounded.
- Tubelets (`tubelet` = s > 1): the final layer gives p*p*C' values a token, a transposed convolution over time, kernel
  and stride s, brings the frames back.
- All tokens: the two tokens are patches N and N+1 of every frame, without positions; the final layer is a plain norm.
- Rotary positions over time (`temporal_pos="rope"`): pairs of each head, theta 10000, attention over time only.
- `temporal_gain`: the table is scaled by a learned number that starts at 0, so that a network that starts from an image
  model is that image model at first (`longtake.backbones.latte_layouts.start_from_images`).
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.backbones.latte_blocks import KINDS, STREAMS, LatteBlock, LatteCondition
from longtake.errors import BadInput, BadSize, UnknownName, nearest
from longtake.layers.linear import Linear
from longtake.layers.modulation import ModulationProjection, linear_fp32, norm_modulate
from longtake.layers.patching import patchify, unpatchify
from longtake.layers.positions import sincos_line, sincos_plane, timestep_features
from longtake.layers.rotary import rotary_line
from longtake.runtime import AttendPoint, BlockForm, Blocks, Family, Part, StepInfo, TokenGrid, latent_grid

VARIANTS = ("1", "2", "3", "4", "joint", "spatial")
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
"""Depth, width and heads of the published sizes, as V1."""


def latte_config(name: str, variant: int | str = 1) -> dict[str, Any]:
    """Arguments of `Latte` for a published size.

    Args:
        name: "S/2", "B/4", "L/8", "XL/2" ...: a size of SIZES and the patch, 2, 4 or 8.
        variant: as `Latte`; 3 and 4 get the depth that has the same number of parameters.

    Raises:
        UnknownName: no such size.
    """
    known = [f"{size}/{patch}" for size in SIZES for patch in (2, 4, 8)]
    if name not in known:
        raise UnknownName(f"no Latte is called '{name}'.{nearest(name, known)}")
    size, patch = name.split("/")
    depth, width, heads = SIZES[size]
    if str(variant) in ("3", "4"):
        depth = round(depth * 23 / 28)
    return {"depth": depth, "width": width, "heads": heads, "patch": int(patch), "variant": str(variant)}


def block_form(block: Any) -> BlockForm:
    """What methods must know of a block."""
    axes = KINDS[block.kind]
    kinds = {axis: "attn.joint" if axis == "joint" else "attn.self" for axis in axes}
    stream = STREAMS[block.kind] if len(axes) == 1 else "video"
    return BlockForm(
        (
            *(Part(f"attentions.{axis}", kinds[axis], STREAMS[axis]) for axis in axes),
            Part("cross", "attn.cross", "spatial"),
            Part("ffn", "ffn", stream),
        ),
        (
            *(Part(f"attentions.{axis}.attend", kinds[axis], STREAMS[axis]) for axis in axes),
            Part("cross.attend", "attn.cross", "spatial"),
        ),
        hidden="h",
        layout="frames",
        stream=stream,
    )


FAMILY = Family(
    "Latte",
    (Blocks("blocks", block_form),),
    lambda network, given: latent_grid(given["latents"], network.patch),  # type: ignore[arg-type]
    latents="latents",
    first_safe=lambda network: network.temporal_at if network.config.temporal_pos == "sincos" else 0,  # type: ignore[union-attr]
)
"""What methods must know of it; positions in time enter the stream before block `temporal_at`."""


class Latte(ModelMixin, ConfigMixin):
    """The denoiser.

    Args:
        latent_channels: C of the latents.
        width, depth, heads: features of a token, blocks, attention heads.
        patch, tubelet: rows and columns, and frames, of one token.
        variant: "1" to "4", "joint" or "spatial", see above; whole numbers are taken too.
        inject: "s_adaln" or "all_tokens". temporal_pos: "sincos" or "rope". temporal_gain: see above.
        classes: number of classes, 0 for none; label `classes` is the null class.
        text: "none", "vector" (`text_length` states of `text_width` features as one vector) or "cross".
        text_width, text_length: of the text encoder's states.
        learned_variance: twice the channels come out, the second half codes the variance (`diffusion.gaussian`).
        half_width: variant 4's attentions have half of the channels each.
        position_base: rows of tokens that spatial positions count to; larger grids are squeezed onto as many.
            None = positions are whole numbers.
        mlp_ratio: features of the feed-forward network / width.

    Raises:
        BadInput: arguments that do not fit one another.
    """

    family = FAMILY
    _supports_gradient_checkpointing = True
    _no_split_modules = ["LatteBlock"]
    _repeated_blocks = ["LatteBlock"]

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        patch: int = 2,
        tubelet: int = 1,
        variant: str = "1",
        inject: str = "s_adaln",
        temporal_pos: str = "sincos",
        temporal_gain: bool = False,
        classes: int = 0,
        text: str = "none",
        text_width: int = 768,
        text_length: int = 77,
        learned_variance: bool = True,
        half_width: bool = False,
        position_base: int | None = None,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        _check(variant, inject, temporal_pos, text, width, depth, heads)
        kinds, self.temporal_at = _plan(variant, depth)
        self.patch = (tubelet, patch, patch)
        volume = tubelet * patch * patch
        self.out_channels = latent_channels * (2 if learned_variance else 1)
        modulation = "none" if inject == "all_tokens" else "shared" if text == "cross" else "block"

        self.embed = Linear(latent_channels * volume, width)
        self.time_embed = nn.Sequential(Linear(256, width), nn.SiLU(), Linear(width, width))
        self.class_embed = nn.Embedding(classes + 1, width) if classes else None
        self.text_embed: nn.Sequential | None = None
        if text == "vector":
            self.text_embed = nn.Sequential(nn.SiLU(), Linear(text_length * text_width, width))
        elif text == "cross":
            first, second = Linear(text_width, width), Linear(width, width)
            self.text_embed = nn.Sequential(first, nn.GELU(approximate="tanh"), second)
        self.time_scale = nn.Parameter(torch.zeros(())) if temporal_gain else None
        self.shared_modulation = ModulationProjection(width, 6) if modulation == "shared" else None
        self.blocks = nn.ModuleList(
            LatteBlock(
                width,
                int(width * mlp_ratio),
                heads,
                kind,
                modulation,
                layer,
                depth,
                cross=text == "cross" and kind != "time",
                half_width=half_width,
            )
            for layer, kind in enumerate(kinds)
        )
        self.head_modulation = ModulationProjection(width, 2) if modulation == "block" else None
        self.head_table = nn.Parameter(torch.zeros(2, width)) if modulation == "shared" else None
        self.head = Linear(width, self.out_channels * patch * patch)
        self.expand = None
        if tubelet > 1:
            steps = (tubelet, 1, 1)
            self.expand = nn.ConvTranspose3d(self.out_channels, self.out_channels, steps, steps)
        self.gradient_checkpointing = False
        self._initialise()

    def _initialise(self) -> None:
        """As published: every block passes its input on and the output is 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.endswith(("modulation.linear", "projection.linear")):
                    continue  # ModulationProjection starts at zero
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_embed[0], self.time_embed[2], self.class_embed):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.head.weight)
        if self.expand is not None:
            nn.init.zeros_(self.expand.bias)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        condition: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        image_labels: Tensor | None = None,
        images: int = 0,
        info: StepInfo | None = None,
    ) -> Tensor:
        """Predict the noise (or the velocity, in a network that is trained so), and the code of its variance.

        Args:
            latents: (B, C, T, H, W), noisy; the last `images` frames are single images.
            timestep: (B,) or a scalar, 0 to 1000.
            text: (B, L, text_width), states of the text encoder; None without text.
            text_mask: (B, L) bool, True = a token of the prompt; None = no padding. Used by text="cross".
            condition: must be None: Latte takes no given frames.
            labels: (B,) whole numbers, `classes` is the null class; None = the null class for all.
            image_labels: (B, images), of the single images; None = the null class.
            info: which forward of which run; for methods only, it never changes what is computed here.

        Returns:
            (B, C, T, H, W), or (B, 2C, T, H, W) with `learned_variance`, in the dtype of `latents`.

        Raises:
            BadSize: latents that the patch does not divide. BadInput: a condition that this network does not take.
        """
        grid = self.token_grid(latents, images)
        if condition is not None:
            raise BadInput("frames were given to a Latte, which takes none; leave them out")
        h = self.embed(patchify(latents, self.patch)).unflatten(1, (grid.frames, -1))  # (B, F, N, D)
        h = h + self._places(grid, h.device).to(h.dtype)

        time = self.embed_time(timestep.expand(h.shape[0]))
        final = time[:, None]
        parts = [final]
        if self.class_embed is not None:
            parts.append(self._label(labels, image_labels, h.shape[0], grid, images))
            final = final + parts[-1]
        words = None if self.text_embed is None else self._text(text)
        if words is not None and self.config.text == "vector":
            parts.append(words)
        cond = LatteCondition(
            total=sum(parts[1:], parts[0]),
            shared=None if self.shared_modulation is None else self.shared_modulation(parts[0][:, 0]),
            text=words if self.config.text == "cross" else None,
            text_mask=None if text_mask is None else text_mask[:, None, None].bool(),
            turns=self._turns(grid, images, h.device),
            grid=grid,
            video=grid.frames - images,
            info=info,
            time=time,
        )
        cond = self.prepare(cond, timestep)
        if self.config.inject == "all_tokens":
            extra = [part[:, :, None].expand(-1, grid.frames, -1, -1) for part in parts]
            h = torch.cat([h, *(part.to(h.dtype) for part in extra)], dim=2)

        for number, block in enumerate(self.blocks):
            if number == self.temporal_at and self.config.temporal_pos == "sincos":
                h = h + self._moments(cond.video, images, h.device).to(h.dtype)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                h = self._gradient_checkpointing_func(block, h, cond)
            else:
                h = block(h, cond)

        h = self._head_norm(h[:, :, : grid.height * grid.width], final)
        made = unpatchify(self.head(h).flatten(1, 2), grid, (1, *self.patch[1:]))
        return (made if self.expand is None else self.expand(made)).to(latents.dtype)

    def prepare(self, cond: LatteCondition, timestep: Tensor) -> LatteCondition:
        """Add what the blocks of a converted network need besides: nothing here."""
        return cond

    def token_grid(self, latents: Tensor, images: int) -> TokenGrid:
        """Grid of the tokens of latents (B, C, T, H, W). Raises as `forward`."""
        _, _, *size = latents.shape
        if any(n % p for n, p in zip(size, self.patch, strict=True)):
            raise BadSize(f"latents of {tuple(size)} cannot be cut into patches of {self.patch}; use multiples of them")
        if not 0 <= images < size[0]:
            raise BadInput(f"{images} single images in latents of {size[0]} frames; at least one frame is the clip's")
        if images and self.patch[0] > 1:
            raise BadInput("single images were given to a network of tubelets; use one with tubelet=1")
        return TokenGrid(*(n // p for n, p in zip(size, self.patch, strict=True)))

    def _places(self, grid: TokenGrid, device: torch.device) -> Tensor:
        """Positions in space: (N, D)."""
        base = self.config.position_base
        rows, columns = (
            torch.arange(n, dtype=torch.float64, device=device) * (1 if base is None else base / n)
            for n in (grid.height, grid.width)
        )
        return sincos_plane(rows, columns, self.config.width)

    def _turns(self, grid: TokenGrid, images: int, device: torch.device) -> Tensor | None:
        """Rotary positions in time of attention's heads: complex64 (F, head_dim/2), or None."""
        if self.config.temporal_pos != "rope":
            return None
        head_dim = next(module.site.head_dim for module in self.blocks.modules() if isinstance(module, AttendPoint))
        return rotary_line(grid.frames - images, head_dim, device=device)

    def _moments(self, frames: int, images: int, device: torch.device) -> Tensor:
        """Positions in time: (F, 1, D), zero for single images."""
        table = sincos_line(torch.arange(frames, device=device), self.config.width)
        if self.time_scale is not None:
            table = self.time_scale * table
        return nn.functional.pad(table, (0, 0, 0, images))[:, None]

    def embed_time(self, timestep: Tensor) -> Tensor:
        """Timesteps (B,), 0 to 1000, embedded: (B, D) float32."""
        time = timestep_features(timestep)
        for layer in self.time_embed:
            time = linear_fp32(layer, time) if isinstance(layer, nn.Linear) else layer(time)
        return time

    def _label(
        self, labels: Tensor | None, image_labels: Tensor | None, batch: int, grid: TokenGrid, images: int
    ) -> Tensor:
        """Embedded class: (B, 1, D), or (B, F, D) where single images have their own."""
        assert self.class_embed is not None
        null = torch.full((batch, 1), self.config.classes, device=self.class_embed.weight.device)
        of_clip = self.class_embed(null[:, 0] if labels is None else labels)[:, None].float()
        if not images:
            return of_clip
        of_images = self.class_embed(null.expand(-1, images) if image_labels is None else image_labels).float()
        return torch.cat([of_clip.expand(-1, grid.frames - images, -1), of_images], dim=1)

    def _text(self, text: Tensor | None) -> Tensor:
        """Projected text: (B, 1, D) float32 of text="vector", (B, L, D) of text="cross"."""
        assert self.text_embed is not None
        if text is None:
            raise BadInput("no text was given to a Latte that is conditioned on text; give the states of a prompt")
        if self.config.text == "cross":
            return self.text_embed(text)
        length, features = self.config.text_length, self.config.text_width
        if text.shape[1:] != (length, features):
            raise BadInput(f"text states of {tuple(text.shape[1:])}; this Latte takes ({length}, {features})")
        return linear_fp32(self.text_embed[1], self.text_embed[0](text.float().flatten(1)))[:, None]

    def _head_norm(self, tokens: Tensor, final: Tensor) -> Tensor:
        """The last norm: modulated by `final` (B, F or 1, D), or plain."""
        if self.head_modulation is not None:
            shift, scale = self.head_modulation(final).unsqueeze(3).unbind(2)
        elif self.head_table is not None:
            shift, scale = (self.head_table.float() + final[:, :, None]).unsqueeze(3).unbind(2)
        else:
            return nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        return norm_modulate(tokens, shift, scale)


def _check(variant: str, inject: str, temporal_pos: str, text: str, width: int, depth: int, heads: int) -> None:
    chosen = {
        "variant": (str(variant), VARIANTS),
        "inject": (inject, ("s_adaln", "all_tokens")),
        "temporal_pos": (temporal_pos, ("sincos", "rope")),
        "text": (text, ("none", "vector", "cross")),
    }
    for name, (value, known) in chosen.items():
        if value not in known:
            raise BadInput(f"{name} is {value!r}; use one of {', '.join(known)}")
    if width % heads or width % 4 or (width // heads) % 2:
        raise BadInput(f"width {width} with {heads} heads; use a multiple of 4 that the heads divide into even parts")
    if str(variant) == "4" and heads % 2:
        raise BadInput(f"{heads} heads in variant 4, whose two attentions have half of them each; use an even number")
    if depth < 1 or (str(variant) in ("1", "2", "spatial") and depth % 2):
        raise BadInput(f"depth {depth} in variant {variant}: half of its blocks are spatial; use an even number")
    if inject == "all_tokens" and (str(variant) == "joint" or text == "cross"):
        raise BadInput("inject='all_tokens' goes with variants 1 to 4 and without cross-attention; use 's_adaln'")


def _plan(variant: str, depth: int) -> tuple[list[str], int]:
    """Kinds of the blocks, and before which one positions in time are added."""
    half = depth // 2
    plans = {
        "1": (["space", "time"] * half, 1),
        "2": (["space"] * half + ["time"] * half, half),
        "3": (["serial"] * depth, 0),
        "4": (["parallel"] * depth, 0),
        "joint": (["joint"] * depth, 0),
        "spatial": (["space"] * depth, 1),
    }
    return plans[str(variant)]
