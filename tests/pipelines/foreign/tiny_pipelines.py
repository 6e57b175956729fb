"""Tiny random text-to-video pipelines of diffusers, one of each family, with text encoders and tokenizers of their own.

Nothing is zero in the networks, and schedulers are set up as those of the published models, so that every input matters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from longtake.training.text_encoder import train_tokenizer

PROMPT, NEGATIVE = "a red ball rolls behind a blue cube", "a cube of a blue"
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
VAE = {"in_channels": 3, "out_channels": 3, "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1}


@dataclass(frozen=True)
class Tiny:
    """A pipeline and the clip that it is asked for.

    Args:
        build: (scheduler or None for the published kind, seed) -> pipeline.
        frames, size: of the clip in pixels.
        names: of arguments of the pipeline's call that are called otherwise than usual.
        branches: of a step with guidance.
        channels_last: the pipeline's latents are packed as tokens; frames_first: they are (B, T, C, H, W).
    """

    build: Callable[..., DiffusionPipeline]
    frames: int
    size: int = 32
    names: dict[str, str] = field(default_factory=dict)
    branches: tuple[str, ...] = ("cond_uncond",)
    packed: bool = False
    frames_first: bool = False

    def theirs(
        self,
        pipe: DiffusionPipeline,
        *,
        steps: int = 3,
        guidance: float = 3.0,
        seed: int = 5,
        output_type: str = "latent",
        **more: Any,
    ) -> Tensor:
        """What the pipeline's own call makes: latents, or pixels (B, T, 3, H, W) in [0, 1] with output_type "pt"."""
        asked = {"num_frames": self.frames, "num_inference_steps": steps, "guidance_scale": guidance}
        return pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            height=self.size,
            width=self.size,
            generator=torch.Generator().manual_seed(seed),
            output_type=output_type,
            **{self.names.get(name, name): value for name, value in asked.items()},
            **more,
        ).frames

    def as_theirs(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T, H, W) in the layout of the pipeline."""
        if self.packed:
            return latents.flatten(2).transpose(1, 2)
        return latents.transpose(1, 2) if self.frames_first else latents


def awake(network: nn.Module, seed: int) -> Any:
    """Draw every matrix anew and move every vector."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network.eval().requires_grad_(False)


@cache
def words() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of the prompts, and of HunyuanVideo's template, each as one token."""
    captions = [PROMPT, NEGATIVE, DEFAULT_PROMPT_TEMPLATE["template"]]
    return train_tokenizer(captions * 50, vocab_size=1500, max_length=512)


def t5(kind: str = "t5") -> dict[str, Any]:
    """A text encoder of 16 features, and its tokenizer."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": len(words())}
    config, encoder = (T5Config, T5EncoderModel) if kind == "t5" else (UMT5Config, UMT5EncoderModel)
    return {"text_encoder": awake(encoder(config(**sizes)), 1), "tokenizer": words()}


def noise_levels() -> dict[str, Any]:
    """Settings of schedulers for networks that predict noise, as Latte and Allegro were trained."""
    return {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def cogvideox_scheduler(kind: str) -> SchedulerMixin:
    """That of the published CogVideoX, "DDIM" or "DPM": v-prediction, no signal at the first step."""
    return getattr(diffusers, f"CogVideoX{kind}Scheduler")(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def wan(scheduler: SchedulerMixin | None = None, seed: int = 0, boundary_ratio: float | None = None) -> Any:
    def network(seed: int) -> Any:
        return awake(
            diffusers.WanTransformer3DModel(
                patch_size=(1, 2, 2),
                **HEADS,
                in_channels=4,
                out_channels=4,
                text_dim=16,
                freq_dim=16,
                ffn_dim=24,
                num_layers=2,
                rope_max_seq_len=16,
            ),
            seed,
        )

    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.7, 2.0, 1.1]}
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **statistics)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return diffusers.WanPipeline(
        **t5("umt5"),
        vae=awake(vae, seed + 2),
        scheduler=scheduler or diffusers.UniPCMultistepScheduler(**flow),
        transformer=network(seed),
        transformer_2=None if boundary_ratio is None else network(seed + 1),
        boundary_ratio=boundary_ratio,
    )


def hunyuan_video(scheduler: SchedulerMixin | None = None, seed: int = 0) -> Any:
    network = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        **HEADS,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 6, 6),
    )
    llama = LlamaConfig(
        vocab_size=len(words()), hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2
    )
    clip = CLIPTextConfig(
        vocab_size=len(words()),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=words().eos_token_id,
        projection_dim=8,
    )
    return diffusers.HunyuanVideoPipeline(
        text_encoder=awake(LlamaModel(llama), 1),
        tokenizer=words(),
        text_encoder_2=awake(CLIPTextModel(clip), 1),
        tokenizer_2=words(),
        transformer=awake(network, seed),
        vae=awake(diffusers.AutoencoderKLHunyuanVideo(**VAE, latent_channels=4, norm_num_groups=2), seed + 2),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def cogvideox(scheduler: SchedulerMixin | None = None, seed: int = 0, patch_size_t: int | None = None) -> Any:
    network = diffusers.CogVideoXTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_size_t,
        patch_bias=patch_size_t is None,
        use_rotary_positional_embeddings=True,
    )
    return diffusers.CogVideoXPipeline(
        **t5(),
        vae=awake(diffusers.AutoencoderKLCogVideoX(**VAE, latent_channels=4, norm_num_groups=2), seed + 2),
        transformer=awake(network, seed),
        scheduler=scheduler or cogvideox_scheduler("DDIM"),
    )


def latte(scheduler: SchedulerMixin | None = None, seed: int = 0) -> Any:
    network = diffusers.LatteTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=32,
        attention_bias=True,
        sample_size=4,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=16,
        video_length=3,
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return diffusers.LattePipeline(
        **t5(),
        vae=awake(diffusers.AutoencoderKL(**VAE, **blocks, latent_channels=4, norm_num_groups=2), seed + 2),
        transformer=awake(network, seed),
        scheduler=scheduler or diffusers.DDIMScheduler(**noise_levels(), clip_sample=False),
    )


def ltx(scheduler: SchedulerMixin | None = None, seed: int = 0, timestep_conditioning: bool = False) -> Any:
    network = diffusers.LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        patch_size=1,
        patch_size_t=1,
        **HEADS,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=16,
    )
    scaling = (True, True, False, False)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling,
        patch_size=2,
        timestep_conditioning=timestep_conditioning,
    )
    vae.latents_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    vae.latents_std.copy_(torch.tensor([1.5, 0.7, 2.0, 1.1]))
    shift = {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "shift_terminal": 0.1}
    return diffusers.LTXPipeline(
        **t5(),
        vae=awake(vae, seed + 2),
        transformer=awake(network, seed),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(**shift),
    )


def mochi(scheduler: SchedulerMixin | None = None, seed: int = 0) -> Any:
    network = diffusers.MochiTransformer3DModel(
        patch_size=2,
        **HEADS,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        out_channels=None,
        text_embed_dim=16,
        time_embed_dim=8,
        max_sequence_length=256,
    )
    widths = {"encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}
    vae = diffusers.AutoencoderKLMochi(**widths, latent_channels=12, layers_per_block=(1, 1, 1, 1, 1))
    return diffusers.MochiPipeline(
        **t5(),
        vae=awake(vae, seed + 2),
        transformer=awake(network, seed),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )


def allegro(scheduler: SchedulerMixin | None = None, seed: int = 0) -> Any:
    network = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=48,
        sample_width=4,
        sample_height=4,
        sample_frames=2,
        caption_channels=16,
    )
    vae = diffusers.AutoencoderKLAllegro(**VAE, latent_channels=4, norm_num_groups=2)
    vae.enable_tiling()
    vae.kernel, vae.stride = (8, 32, 32), (4, 16, 16)  # it decodes whole tiles only
    return diffusers.AllegroPipeline(
        **t5(),
        vae=awake(vae, seed + 2),
        transformer=awake(network, seed),
        scheduler=scheduler or diffusers.EulerAncestralDiscreteScheduler(**noise_levels()),
    )


FAMILIES: dict[str, Tiny] = {
    "wan": Tiny(wan, 9, branches=("cond", "uncond")),
    "hunyuan-video": Tiny(hunyuan_video, 9, names={"guidance_scale": "true_cfg_scale"}, branches=("cond", "uncond")),
    "cogvideox": Tiny(cogvideox, 9, frames_first=True),
    "latte": Tiny(latte, 3, names={"num_frames": "video_length"}),
    "ltx": Tiny(ltx, 9, packed=True),
    "mochi": Tiny(mochi, 7),
    "allegro": Tiny(allegro, 8),
}
"""Name of a family -> its tiny pipeline."""
