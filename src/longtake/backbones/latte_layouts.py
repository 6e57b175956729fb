"""Latte's weights in the layouts that others store them in, and an image model as a start.

- official: checkpoints of Vchitect/Latte, class-conditional, unconditional, or with one text vector (variant 1 only).
- diffusers: `LatteTransformer3DModel`, the text-to-video model Latte-1.
- DiT: checkpoints of facebookresearch/DiT, whose blocks have the official layout.

Only names and the order of a few entries differ: the published final layer's outputs run (row, column, channel) within
a patch, ours (channel, row, column).
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longtake.backbones.latte import Latte
from longtake.errors import BadInput

TABLES = ("pos_embed", "temp_embed", "pos_embed.pos_embed", "temp_pos_embed")
"""Fixed positions that published files carry; ours are computed."""

OFFICIAL = {
    "x_embedder.proj": "embed",
    "t_embedder.mlp.0": "time_embed.0",
    "t_embedder.mlp.2": "time_embed.2",
    "y_embedder.embedding_table": "class_embed",
    "text_embedding_projection.1": "text_embed.1",
    "final_layer.adaLN_modulation.1": "head_modulation.linear",
    "final_layer.linear": "head",
}
"""Modules outside the blocks: published name -> ours."""
OFFICIAL_BLOCK = {
    "adaLN_modulation.1": "projection.linear",
    "attn.qkv": "attentions.{axis}.qkv",
    "attn.proj": "attentions.{axis}.out",
    "mlp.fc1": "ffn.up",
    "mlp.fc2": "ffn.down",
}

DIFFUSERS = {
    "pos_embed.proj": "embed",
    "adaln_single.emb.timestep_embedder.linear_1": "time_embed.0",
    "adaln_single.emb.timestep_embedder.linear_2": "time_embed.2",
    "adaln_single.linear": "shared_modulation.linear",
    "caption_projection.linear_1": "text_embed.0",
    "caption_projection.linear_2": "text_embed.2",
    "proj_out": "head",
    "scale_shift_table": "head_table",
}
DIFFUSERS_BLOCK = {
    "scale_shift_table": "table",
    "attn1.to_out.0": "attentions.{axis}.out",
    "attn2.to_q": "cross.q",
    "attn2.to_out.0": "cross.out",
    "ff.net.0.proj": "ffn.up",
    "ff.net.2": "ffn.down",
}
DIFFUSERS_JOINED = {
    "attn1": (("to_q", "to_k", "to_v"), "attentions.{axis}.qkv"),
    "attn2": (("to_k", "to_v"), "cross.kv"),
}
"""Projections that diffusers keeps apart and we hold as one matrix, in this order."""


def from_official(weights: Mapping[str, Tensor], heads: int | None = None) -> Latte:
    """A `Latte` of an official checkpoint (the dictionary under its "ema" or "model" where it has these).

    Args:
        weights: name -> tensor.
        heads: attention heads, which the file does not tell; None = those of the published size of this width.

    Raises:
        BadInput: names or shapes that are not those of a Latte.
    """
    config = official_config(weights, heads)
    model = Latte(**config)
    patch, channels = config["patch"], model.out_channels
    axes = _axes(model)
    renamed = {}
    for name, value in weights.items():
        if name in TABLES:
            continue
        ours = _official_name(name, axes)
        if ours is None:
            raise BadInput(f"'{name}' is no parameter of an official Latte checkpoint; import one of Vchitect/Latte")
        if ours == "embed.weight":
            value = value.flatten(1)
        if ours.startswith("head."):
            value = _channels_first(value, patch, channels)
        renamed[ours] = value
    return _filled(model, renamed, "an official Latte checkpoint")


def to_official(model: Latte, frames: int = 16, side: int = 32) -> dict[str, Tensor]:
    """The weights in the official layout, with tables for `frames` frames of square latents of `side`.

    Raises:
        BadInput: a variant or a switch that the published code does not have.
    """
    config = model.config
    plain = {"variant": "1", "inject": "s_adaln", "temporal_pos": "sincos", "temporal_gain": False, "tubelet": 1}
    for name, wanted in plain.items():
        if str(config[name]) != str(wanted):
            raise BadInput(f"{name} {config[name]} has no official layout; only {name} {wanted} has one")
    if config.text == "cross":
        raise BadInput("text='cross' has no official layout here; export it to diffusers")
    axes = _axes(model)
    back = {ours: theirs for theirs, ours in OFFICIAL.items()}
    weights = {}
    for name, value in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if stem in back:
            theirs = f"{back[stem]}.{kind}"
        else:
            _, number, inner = stem.split(".", 2)
            names = {ours.format(axis=axes[int(number)]): theirs for theirs, ours in OFFICIAL_BLOCK.items()}
            theirs = f"blocks.{number}.{names[inner]}.{kind}"
        if name == "embed.weight":
            value = value.view(-1, config.latent_channels, config.patch, config.patch)
        if stem == "head":
            value = _channels_last(value, config.patch, model.out_channels)
        weights[theirs] = value.clone()
    grid = model.token_grid(torch.empty(1, config.latent_channels, frames, side, side), 0)
    weights["pos_embed"] = model._places(grid, torch.device("cpu"))[None]
    weights["temp_embed"] = model._moments(frames, 0, torch.device("cpu"))[:, 0][None]
    return weights


def official_config(weights: Mapping[str, Tensor], heads: int | None = None) -> dict[str, Any]:
    """Arguments of `Latte` for an official checkpoint. Raises BadInput when it is none."""
    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        outputs = weights["final_layer.linear.weight"].shape[0] // patch**2
    except (KeyError, ValueError):
        raise BadInput("this is no official Latte checkpoint: it has no x_embedder.proj.weight of 4 axes") from None
    depth = 1 + max(int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name)))
    known = {384: 6, 768: 12, 1024: 16, 1152: 16}
    heads = heads or known.get(width)
    if heads is None:
        raise BadInput(f"width {width} is none of the published ones, so the number of heads is not known: give heads")
    config: dict[str, Any] = {
        "latent_channels": channels,
        "width": width,
        "depth": depth,
        "heads": heads,
        "patch": patch,
        "learned_variance": outputs == 2 * channels,
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
    }
    if "y_embedder.embedding_table.weight" in weights:
        config["classes"] = weights["y_embedder.embedding_table.weight"].shape[0] - 1
    if "text_embedding_projection.1.weight" in weights:
        config["text"] = "vector"
        config["text_width"] = weights["text_embedding_projection.1.weight"].shape[1] // 77
    return config


def from_diffusers(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Latte:
    """A `Latte` with the config and weights of a `LatteTransformer3DModel`.

    Raises:
        BadInput: a config of another kind of network than Latte-1.
    """
    model = Latte(**diffusers_config(config))
    patch, channels = config["patch_size"], model.out_channels
    renamed: dict[str, Tensor] = {}
    joined: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in weights.items():
        if name in TABLES:
            continue
        block = re.match(r"(temporal_)?transformer_blocks\.(\d+)\.(.+)", name)
        if block is None:
            stem, kind = _stem(name, DIFFUSERS)
            ours = f"{DIFFUSERS[stem]}{kind}"
            if ours == "embed.weight":
                value = value.flatten(1)
            if ours.startswith("head."):
                value = _channels_first(value, patch, channels)
            renamed[ours] = value
            continue
        axis = "time" if block[1] else "space"
        place = f"blocks.{2 * int(block[2]) + bool(block[1])}"
        attention, _, rest = block[3].partition(".")
        part, _, kind = rest.rpartition(".")
        if attention in DIFFUSERS_JOINED and part in DIFFUSERS_JOINED[attention][0]:
            target = f"{place}.{DIFFUSERS_JOINED[attention][1].format(axis=axis)}.{kind}"
            joined.setdefault((target, attention), {})[part] = value
            continue
        stem, kind = _stem(block[3], DIFFUSERS_BLOCK)
        renamed[f"{place}.{DIFFUSERS_BLOCK[stem].format(axis=axis)}{kind}"] = value
    for (target, attention), parts in joined.items():
        renamed[target] = torch.cat([parts[part] for part in DIFFUSERS_JOINED[attention][0]])
    return _filled(model, renamed, "a LatteTransformer3DModel")


def to_diffusers(model: Latte) -> dict[str, Tensor]:
    """The weights in the layout of `LatteTransformer3DModel`, whose tables are computed and not stored.

    Raises:
        BadInput: not a Latte-1 (text="cross", variant 1).
    """
    config = model.config
    if config.text != "cross" or str(config.variant) != "1":
        raise BadInput(f"text={config.text!r} in variant {config.variant}: only Latte-1 has a layout of diffusers")
    back = {ours: theirs for theirs, ours in DIFFUSERS.items()}
    weights: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        block = re.match(r"blocks\.(\d+)\.(.+)", name)
        if block is None:
            stem, kind = _stem(name, back)
            if name == "embed.weight":
                value = value.view(-1, config.latent_channels, config.patch, config.patch)
            if stem == "head":
                value = _channels_last(value, config.patch, model.out_channels)
            weights[f"{back[stem]}{kind}"] = value.clone()
            continue
        axis = ("space", "time")[int(block[1]) % 2]
        place = f"{'temporal_' if axis == 'time' else ''}transformer_blocks.{int(block[1]) // 2}"
        for attention, (parts, ours) in DIFFUSERS_JOINED.items():
            stem = ours.format(axis=axis)
            if block[2].startswith(f"{stem}."):
                kind = block[2].removeprefix(f"{stem}.")
                for part, piece in zip(parts, value.chunk(len(parts)), strict=True):
                    weights[f"{place}.{attention}.{part}.{kind}"] = piece.clone()
                break
        else:
            names = {ours.format(axis=axis): theirs for theirs, ours in DIFFUSERS_BLOCK.items()}
            stem, kind = _stem(block[2], names)
            weights[f"{place}.{names[stem]}{kind}"] = value.clone()
    return weights


def diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Latte` for a config of `LatteTransformer3DModel`. Raises BadInput for what Latte-1 does not have."""
    needed = {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_single", "attention_bias": True}
    for name, wanted in needed.items():
        if config.get(name) != wanted:
            raise BadInput(
                f"{name} is {config.get(name)!r} in this LatteTransformer3DModel; only {wanted!r} is built here"
            )
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if config.get("cross_attention_dim") != width or config.get("norm_elementwise_affine"):
        raise BadInput(f"expected cross_attention_dim {width} and norms without parameters, as in Latte-1")
    side = config["sample_size"]
    return {
        "latent_channels": config["in_channels"],
        "width": width,
        "depth": 2 * config["num_layers"],
        "heads": config["num_attention_heads"],
        "patch": config["patch_size"],
        "text": "cross",
        "text_width": config["caption_channels"],
        "learned_variance": config.get("out_channels") == 2 * config["in_channels"],
        "position_base": side // config["patch_size"] // max(side // 64, 1),
    }


def start_from_images(model: Latte, weights: Mapping[str, Tensor]) -> int:
    """Load an image model (an official DiT checkpoint) into the blocks that attend over space; in place.

    A variant 1 of as many spatial blocks as the image model has blocks takes them one by one; with fewer it takes them
    evenly spaced. The table of classes is left out, and blocks over time stay as they are: with `temporal_gain` and gates
    at 0 the network then is the image model, frame by frame.

    Returns:
        How many blocks were filled.

    Raises:
        BadInput: the image model has another width or patch, or fewer blocks.
    """
    axes = _axes(model)
    spatial = [number for number, axis in enumerate(axes) if axis == "space"]
    depth = 1 + max((int(m[1]) for name in weights if (m := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    if depth < len(spatial):
        raise BadInput(f"an image model of {depth} blocks cannot fill {len(spatial)} spatial blocks; take a deeper one")
    source = {number: index * depth // len(spatial) for index, number in enumerate(spatial)}
    own = model.state_dict()
    for number, block in source.items():
        for theirs, ours in OFFICIAL_BLOCK.items():
            for kind in ("weight", "bias"):
                name = f"blocks.{number}.{ours.format(axis='space')}.{kind}"
                _copy(own[name], weights[f"blocks.{block}.{theirs}.{kind}"], name)
    for theirs, ours in OFFICIAL.items():
        for kind in ("weight", "bias"):
            value = weights.get(f"{theirs}.{kind}")
            if value is None or ours in ("class_embed", "text_embed.1"):
                continue
            if ours == "embed":
                value = value.flatten(1) if kind == "weight" else value
            if ours == "head":
                value = _channels_first(value, model.config.patch, model.out_channels)
            _copy(own[f"{ours}.{kind}"], value, f"{ours}.{kind}")
    return len(spatial)


def _copy(own: Tensor, value: Tensor, name: str) -> None:
    if own.shape != value.shape:
        raise BadInput(
            f"{name} is {tuple(own.shape)} here and {tuple(value.shape)} in the image model; match the sizes"
        )
    own.copy_(value)


def _axes(model: Latte) -> list[str]:
    """What each block attends over, or its kind where it attends over two axes."""
    return [str(block.kind) for block in model.blocks]


def _official_name(name: str, axes: list[str]) -> str | None:
    stem, _, kind = name.rpartition(".")
    if stem in OFFICIAL:
        return f"{OFFICIAL[stem]}.{kind}"
    found = re.match(r"blocks\.(\d+)\.(.+)", stem)
    if found is None or found[2] not in OFFICIAL_BLOCK or int(found[1]) >= len(axes):
        return None
    return f"blocks.{found[1]}.{OFFICIAL_BLOCK[found[2]].format(axis=axes[int(found[1])])}.{kind}"


def _stem(name: str, known: Mapping[str, str]) -> tuple[str, str]:
    """Split a parameter's name into a known stem and the rest (".weight", ".bias" or "")."""
    if name in known:
        return name, ""
    stem, _, kind = name.rpartition(".")
    if stem not in known:
        raise BadInput(f"'{name}' is no parameter of a LatteTransformer3DModel as it is read here")
    return stem, f".{kind}"


def _channels_first(value: Tensor, patch: int, channels: int) -> Tensor:
    """Outputs (row, column, channel) -> (channel, row, column), along the first axis."""
    return value.unflatten(0, (patch, patch, channels)).movedim(2, 0).flatten(0, 2)


def _channels_last(value: Tensor, patch: int, channels: int) -> Tensor:
    """The inverse of `_channels_first`."""
    return value.unflatten(0, (channels, patch, patch)).movedim(0, 2).flatten(0, 2)


def _filled(model: Latte, weights: dict[str, Tensor], what: str) -> Latte:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise BadInput(f"these are not the weights of {what}: {(lines[1:] or lines)[0].strip()}") from None
    return model
