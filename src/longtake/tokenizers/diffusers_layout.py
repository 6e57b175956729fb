"""The config of diffusers' `AutoencoderKLWan` in our words and back; the parameters need no map, they share names."""

from collections.abc import Mapping
from typing import Any

from longtake.errors import BadInput


def config_from_diffusers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `CausalVAE` for a config of `AutoencoderKLWan`.

    `BadInput` for what this class does not build: attention inside the levels (`attn_scales`), and pixels that differ
    in number of channels between input and output.
    """
    patch = config.get("patch_size") or 1
    channels = config.get("in_channels", 3)
    if config.get("attn_scales"):
        raise BadInput(f"attn_scales={list(config['attn_scales'])} is not built here; expected an empty list")
    if channels != config.get("out_channels", 3) or channels % patch**2:
        raise BadInput(
            f"in_channels {channels}, out_channels {config.get('out_channels', 3)} and patch_size {patch} do not agree; "
            "expected equal channels, a multiple of patch_size squared"
        )
    return {
        "in_channels": channels // patch**2,
        "latent_channels": config["z_dim"],
        "base_width": config["base_dim"],
        "decoder_base_width": config.get("decoder_base_dim"),
        "multipliers": list(config["dim_mult"]),
        "blocks_per_level": config["num_res_blocks"],
        "temporal_downsample": list(config["temperal_downsample"]),
        "patch_size": patch,
        "latents_mean": list(config["latents_mean"]),
        "latents_std": list(config["latents_std"]),
        "dropout": config.get("dropout", 0.0),
        "shortcuts": bool(config.get("is_residual", False)),
    }


def config_to_diffusers(config: Mapping[str, Any], stride: tuple[int, int, int]) -> dict[str, Any]:
    """Arguments of `AutoencoderKLWan` for a config of `CausalVAE` and its stride (time, height, width)."""
    patch = config["patch_size"]
    return {
        "in_channels": config["in_channels"] * patch**2,
        "out_channels": config["in_channels"] * patch**2,
        "z_dim": config["latent_channels"],
        "base_dim": config["base_width"],
        "decoder_base_dim": config["decoder_base_width"],
        "dim_mult": list(config["multipliers"]),
        "num_res_blocks": config["blocks_per_level"],
        "temperal_downsample": list(config["temporal_downsample"]),
        "patch_size": None if patch == 1 else patch,
        "latents_mean": list(config["latents_mean"]),
        "latents_std": list(config["latents_std"]),
        "dropout": config["dropout"],
        "is_residual": config["shortcuts"],
        "scale_factor_temporal": stride[0],
        "scale_factor_spatial": stride[1],
    }
