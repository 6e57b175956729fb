"""Small Lattes for tests: the numbers recorded from the official one, and what its weights and inputs were made with."""

import math
import zlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LatteTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from longtake.backbones.latte import Latte
from longtake.backbones.latte_layouts import from_official, to_official

SIZES = {"width": 16, "depth": 4, "heads": 2, "patch": 2, "latent_channels": 4}


def recorded() -> dict[str, Tensor]:
    return load_file(Path(__file__).parent / "latte_official.safetensors")


def fill(shape: tuple[int, ...], name: str, scale: float) -> Tensor:
    """Numbers that look random and follow from a name."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    phase = zlib.crc32(name.encode()) % 1000
    return (scale * torch.sin(n * 0.7310 + phase) * torch.cos(n**2 * 0.01 + phase)).float().reshape(shape)


def official(**changes) -> Latte:
    """Our network with the weights that the recorded one had, through its layout."""
    empty = Latte(**SIZES, **changes)
    weights = {name: fill(value.shape, name, 0.2) for name, value in to_official(empty, frames=4, side=8).items()}
    return from_official(weights, heads=2).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights as after some training: nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.eval()


def latte_1(**changes) -> LatteTransformer3DModel:
    config = {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
        "cross_attention_dim": 16, "attention_bias": True, "sample_size": 16, "patch_size": 2,
        "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False, "norm_eps": 1e-6, "caption_channels": 12, "video_length": 4,
    }  # fmt: skip
    return LatteTransformer3DModel(**{**config, **changes})


def small_autoencoder(levels: int = 4) -> AutoencoderKL:
    """Stable Diffusion's kind of image autoencoder, tiny; each level but the last halves the sides."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        scaling_factor=0.18215,
    ).eval()  # fmt: skip
