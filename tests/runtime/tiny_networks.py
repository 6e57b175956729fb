"""Tiny random networks of every family that methods know, called and sampled in one way.

Ours are told the step (`StepInfo`); those of diffusers find it out from their timestep, and their branch from
`cache_context`, as in diffusers' pipelines. Nothing is zero: modulation, heads and tables are drawn like the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AllegroTransformer3DModel,
    CogVideoXTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LatteTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from longtake.backbones.latte import Latte
from longtake.backbones.waver import HybridStreamDiT
from longtake.runtime import StepInfo

STEPS = 4
BRANCHES = ("cond", "uncond")
WORDS = 5  # text tokens; the last two of a batch's first clip are padding, where a network takes a mask
PADDING = 9.0  # the first feature of a word that is padding, so that masks travel with their clips


@dataclass(frozen=True)
class Tiny:
    """A network and what it is given.

    Args:
        name: of its family, with "our-" before ours.
        network: in eval mode, without gradients.
        given: (latents (B, 4, 2, H, W), text (B, WORDS, 16)) -> keywords of a call, but for the timestep.
        ours: whether it takes a StepInfo.
    """

    name: str
    network: nn.Module
    given: Callable[[Tensor, Tensor], dict[str, Any]]
    ours: bool = False

    def __call__(self, x: Tensor, text: Tensor, t: float, branch: str, info: StepInfo | None = None) -> Tensor:
        """The velocity at latents x (B, 4, T, H, W), in their layout."""
        kwargs, timestep = self.given(x, text), torch.full((x.shape[0],), t)
        if self.name == "mochi":  # whose time rises
            timestep = 1000 - timestep
        if self.ours:
            return self.network(timestep=timestep, **kwargs, info=info)
        if self.name == "hunyuan-video":
            timestep = timestep.long()
        with self.network.cache_context(branch):
            made = self.network(timestep=timestep, **kwargs, return_dict=False)[0]
        if self.name == "cogvideox":
            made = made.transpose(1, 2)
        if self.name == "ltx":
            made = made.transpose(1, 2).unflatten(2, x.shape[2:])
        return made[:, : x.shape[1]]

    def draw(self, seed: int = 0, batch: int = 1, size: tuple[int, int] = (4, 4)) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise (batch, 4, 2, *size), and text for each branch."""
        generator = torch.Generator().manual_seed(seed)
        dtype = next(self.network.parameters()).dtype
        noise = torch.randn(batch, 4, 2, *size, generator=generator).to(dtype)
        text = {branch: torch.randn(batch, WORDS, 16, generator=generator).to(dtype) for branch in BRANCHES}
        for words in text.values():
            words[0, -2:, 0] = PADDING
        return noise, text


def sample(
    tiny: Tiny,
    noise: Tensor,
    text: dict[str, Tensor],
    stack: Any = None,
    steps: int = STEPS,
    order: tuple[str, ...] = BRANCHES,
    break_at: int | None = None,
) -> Tensor:
    """One run with guidance; the latents behind every step, (steps, B, 4, T, H, W).

    Args:
        stack: methods that are attached.
        order: of the branches within a step.
        break_at: raise RuntimeError inside the network's call of that step, in its last branch.
    """
    x, path = noise, []
    run = stack.begin() if stack is not None and tiny.ours else 0
    for s in range(steps):
        noisy, made = 1 - s / steps, {}
        for branch in order:
            info = StepInfo(run, s, steps, 1000 * noisy, noisy, noisy, branch) if tiny.ours else None
            handle = None
            if s == break_at and branch == order[-1]:
                last = [module for module in tiny.network.modules() if isinstance(module, nn.Linear)][-1]
                handle = last.register_forward_pre_hook(_broken)
            try:
                made[branch] = tiny(x, text[branch], 1000 * noisy, branch, info)
            finally:
                if handle is not None:
                    handle.remove()
        x = x - (made["uncond"] + 2 * (made["cond"] - made["uncond"])) / steps
        path.append(x)
    if not tiny.ours:
        tiny.network._reset_stateful_cache()
    elif stack is not None:
        stack.finish(run)
    return torch.stack(path)


def _broken(module: nn.Module, args: Any) -> None:
    raise RuntimeError("broken on purpose")


def awake(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every matrix anew and move every vector, so that nothing is zero and everything matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.2 * weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network.eval().requires_grad_(False)


def build(name: str, seed: int = 0) -> Tiny:
    """A network of a family of FAMILIES; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[name](seed)


def _given_ours(x: Tensor, text: Tensor) -> dict[str, Any]:
    return {"latents": x, "text": text, "text_mask": _mask(text)}


def _waver(seed: int) -> Tiny:
    network = HybridStreamDiT(
        latent_channels=4, text_width=16, width=16, heads=2, dual_blocks=2, single_blocks=2, absolute_size=(2, 4, 4)
    )
    return Tiny("our-waver", awake(network, seed), _given_ours, True)


def _our_latte(seed: int) -> Tiny:
    network = Latte(latent_channels=4, width=16, depth=6, heads=2, text="cross", text_width=16, learned_variance=False)
    return Tiny("our-latte", awake(network, seed), _given_ours, True)


def _wan(seed: int) -> Tiny:
    network = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=24,
        num_layers=4,
        rope_max_seq_len=16,
    )
    return Tiny("wan", awake(network, seed), lambda x, text: {"hidden_states": x, "encoder_hidden_states": text})


def _hunyuan_video(seed: int) -> Tiny:
    network = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=False,
        text_embed_dim=16,
        pooled_projection_dim=16,
        rope_axes_dim=(4, 4, 4),
    )

    def given(x: Tensor, text: Tensor) -> dict[str, Any]:
        of_text = {
            "encoder_hidden_states": text,
            "encoder_attention_mask": _mask(text),
            "pooled_projections": text[:, 0],
        }
        return {"hidden_states": x, **of_text}

    return Tiny("hunyuan-video", awake(network, seed), given)


def _cogvideox(seed: int) -> Tiny:
    network = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=4,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        patch_size=2,
        max_text_seq_length=WORDS,
        use_rotary_positional_embeddings=False,
    )

    def given(x: Tensor, text: Tensor) -> dict[str, Any]:
        return {"hidden_states": x.transpose(1, 2), "encoder_hidden_states": text}

    return Tiny("cogvideox", awake(network, seed), given)


def _latte(seed: int) -> Tiny:
    network = LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        cross_attention_dim=24,
        attention_bias=True,
        sample_size=4,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=16,
        video_length=2,
    )
    return Tiny("latte", awake(network, seed), lambda x, text: {"hidden_states": x, "encoder_hidden_states": text})


def _ltx(seed: int) -> Tiny:
    network = LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=4,
        caption_channels=16,
    )

    def given(x: Tensor, text: Tensor) -> dict[str, Any]:
        size = dict(zip(("num_frames", "height", "width"), x.shape[2:], strict=True))
        packed = x.flatten(2).transpose(1, 2)
        return {"hidden_states": packed, "encoder_hidden_states": text, "encoder_attention_mask": _mask(text), **size}

    return Tiny("ltx", awake(network, seed), given)


def _mochi(seed: int) -> Tiny:
    network = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=4,
        pooled_projection_dim=16,
        in_channels=4,
        out_channels=None,
        text_embed_dim=16,
        time_embed_dim=8,
        max_sequence_length=WORDS,
    )

    def given(x: Tensor, text: Tensor) -> dict[str, Any]:
        return {"hidden_states": x, "encoder_hidden_states": text, "encoder_attention_mask": _mask(text)}

    return Tiny("mochi", awake(network, seed), given)


def _allegro(seed: int) -> Tiny:
    network = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        cross_attention_dim=24,
        sample_width=4,
        sample_height=4,
        sample_frames=2,
        caption_channels=16,
    )

    def given(x: Tensor, text: Tensor) -> dict[str, Any]:
        masks = {"attention_mask": torch.ones_like(x[:, 0]), "encoder_attention_mask": _mask(text).long()}
        return {"hidden_states": x, "encoder_hidden_states": text, "image_rotary_emb": None, **masks}

    return Tiny("allegro", awake(network, seed), given)


def _mask(text: Tensor) -> Tensor:
    """bool (B, WORDS), True = a word of the prompt."""
    return text[:, :, 0] != PADDING


FAMILIES: dict[str, Callable[[int], Tiny]] = {
    "our-waver": _waver,
    "our-latte": _our_latte,
    "wan": _wan,
    "hunyuan-video": _hunyuan_video,
    "cogvideox": _cogvideox,
    "latte": _latte,
    "ltx": _ltx,
    "mochi": _mochi,
    "allegro": _allegro,
}
"""Name -> what builds it from a seed."""
