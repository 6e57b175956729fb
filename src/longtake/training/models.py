"""Networks for a training: new from a configuration, or loaded from a trained folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from longtake.errors import BadInput, BadRecipe, UnknownModel, Unsupported
from longtake.training.network_recipes import BackboneRecipe, ModelRecipe, TextRecipe, TokenizerRecipe
from longtake.training.recipe import check_arguments


def model_folder(name: str) -> Path:
    """The folder of a shipped starter's name, or the folder itself.

    Raises:
        UnknownModel: there is neither.
    """
    import longtake

    shipped = Path(longtake.__file__).parent / "starters" / name
    for folder in (shipped, Path(name)):
        if folder.is_dir():
            return folder
    raise UnknownModel(f"init_from: '{name}' is neither a starter that is shipped nor a folder; check the path.")


def build_tokenizer(recipe: TokenizerRecipe) -> Any:
    """A tokenizer: from ``init_from`` (its folder, or a pipeline that holds one), or a new one of the recipe's kind.

    The folder of an image autoencoder (diffusers' `AutoencoderKL`) gives a `FrameVAE`.
    """
    from longtake.tokenizers.causal_vae import CausalVAE
    from longtake.tokenizers.frame_vae import FrameVAE, load_image_autoencoder
    from longtake.tokenizers.vqgan3d import VQGAN3d

    kind = "VQGAN3d" if recipe.kind == "vqgan" else None
    if recipe.init_from is not None:
        folder = _inside(model_folder(recipe.init_from), ("tokenizer", "vae"))
        kind = _class_name(folder)
        if kind == "AutoencoderKL":
            return load_image_autoencoder(folder)
        if kind == "FrameVAE":
            return _build(FrameVAE, recipe, "tokenizer", ("tokenizer", "vae"))
    if kind == "VQGAN3d":
        return _build(VQGAN3d, recipe, "tokenizer", ("tokenizer", "vae"))
    vae = _build(CausalVAE, recipe, "tokenizer", ("tokenizer", "vae"))
    if recipe.per_frame is not None:
        vae.register_to_config(per_frame=recipe.per_frame)
    return vae


def build_backbone(recipe: BackboneRecipe) -> Any:
    """A network of the recipe's kind: from ``init_from`` (its folder, or a pipeline that holds one) or new.

    A folder that holds a converted network gives that one; with ``flexdit`` or ``dydit`` a network is converted now.
    """
    if recipe.flexdit and recipe.dydit is not None:
        raise BadRecipe("backbone: flexdit and dydit would both choose tokens; leave one of them out.")
    if recipe.init_from is not None:
        converted = _converted(_class_name(_inside(model_folder(recipe.init_from), ("transformer",))))
        if converted is not None:
            if recipe.flexdit or recipe.dydit is not None:
                key = "flexdit" if recipe.flexdit else "dydit"
                raise BadRecipe(f"backbone.{key}: {recipe.init_from} is converted already; leave it out.")
            return _build(converted, recipe, "backbone", ("transformer",))
    network = _network(recipe)
    if recipe.dydit is not None:
        return _to_dydit(network, recipe.dydit)
    return _to_flexdit(network, recipe.flexdit) if recipe.flexdit else network


def _network(recipe: BackboneRecipe) -> Any:
    if recipe.kind == "latte":
        from longtake.backbones.latte import Latte, latte_config

        if "size" in recipe.config:
            given = dict(recipe.config)
            config = {**latte_config(given.pop("size"), given.pop("variant", 1)), **given}
            recipe = replace(recipe, config=config)
        return _build(Latte, recipe, "backbone", ("transformer",))
    from longtake.backbones.waver import HybridStreamDiT

    return _build(HybridStreamDiT, recipe, "backbone", ("transformer",))


def _converted(name: str | None) -> Any:
    """The class of a converted network, None for all others."""
    from longtake.methods.dynamic.dydit import DyHybrid, DyLatte
    from longtake.methods.dynamic.flexdit import FlexHybrid, FlexLatte

    return next((kind for kind in (FlexLatte, FlexHybrid, DyLatte, DyHybrid) if kind.__name__ == name), None)


def _to_dydit(network: Any, given: dict[str, Any]) -> Any:
    """The network converted as ``backbone.dydit`` says."""
    from longtake.methods.dynamic.dydit import add_td_lora, to_dydit

    check_arguments(to_dydit, {key: value for key, value in given.items() if key != "network"}, "backbone.dydit")
    check_arguments(add_td_lora, given.get("td_lora") or {}, "backbone.dydit.td_lora")
    try:
        return to_dydit(network, **given)
    except (BadInput, Unsupported) as error:
        raise BadRecipe(f"backbone.dydit: {error}.") from error


def _to_flexdit(network: Any, given: dict[str, Any]) -> Any:
    """The network converted as ``backbone.flexdit`` says."""
    from longtake.methods.dynamic.flexdit import Density, to_flexdit

    rest = {name: value for name, value in given.items() if name != "layout"}
    if "layout" not in given:
        raise BadRecipe("backbone.flexdit.layout: missing; 2+4x[1,3,1,1]+2 is the paper's for 28 blocks.")
    check_arguments(Density.__init__, rest, "backbone.flexdit")
    try:
        return to_flexdit(network, given["layout"], Density(**rest))
    except (BadInput, Unsupported) as error:
        raise BadRecipe(f"backbone.flexdit: {error}.") from error


def build_gpt(
    recipe: ModelRecipe, section: str, part: str, tokenizer_hash: str, audio_tokenizer_hash: str | None = None
) -> Any:
    """A GPT over a tokenizer's ids: the `part` of a folder of ``init_from``, or new.

    Raises:
        UnknownModel: the folder's were trained on the ids of another tokenizer, of pictures or of sound.
    """
    from longtake.backbones.gpt import GPT

    if recipe.init_from is not None:
        index = model_folder(recipe.init_from) / "model_index.json"
        told = json.loads(index.read_text()) if index.is_file() else {}
        hashes = {"tokenizer": tokenizer_hash, "audio tokenizer": audio_tokenizer_hash}
        for name, own in hashes.items():
            found = told.get(f"{name}_hash".replace(" ", "_"))
            if found not in (None, own):
                raise UnknownModel(
                    f"{section}.init_from: {recipe.init_from} was trained with {name} {found[:12]}, and the recipe's is "
                    f"{(own or 'none')[:12]}; use the one that belongs to it."
                )
    return _build(GPT, recipe, section, (part,))


def build_text(recipe: TextRecipe) -> tuple[Any, Any]:
    """The text encoder and its tokenizer from a folder that holds ``text_encoder`` and ``text_tokenizer``."""
    from longtake.pipelines.text import load_text_encoder

    if recipe.init_from is None:
        raise BadRecipe("text.init_from: missing; a generator needs a trained text encoder (a folder or 'starter').")
    folder = model_folder(recipe.init_from)
    words, encoder = load_text_encoder(folder / "text_encoder", folder / "text_tokenizer")
    return encoder.requires_grad_(recipe.train), words


def checkpoint_gradients(modules: dict[str, nn.Module]) -> None:
    """Recompute activations in the backward pass, in every network that can.

    Raises:
        BadRecipe: none can.
    """
    able = 0
    for module in modules.values():
        if getattr(module, "_supports_gradient_checkpointing", False):  # diffusers'
            module.enable_gradient_checkpointing()  # type: ignore[operator]
            able += 1
        elif getattr(module, "supports_gradient_checkpointing", False):  # transformers'
            older = module.gradient_checkpointing_enable
            getattr(module, "activation_checkpointing_enable", older)()  # type: ignore[operator]
            able += 1
    if not able:
        raise BadRecipe(f"gradient_checkpointing: {', '.join(modules)} cannot do it; set it to false.")


def compile_blocks(modules: dict[str, nn.Module]) -> None:
    """Compile the repeated blocks of every network that names them, once for all sizes, where they are called first.

    Raises:
        BadRecipe: none does.
    """
    able = [module for module in modules.values() if getattr(module, "_repeated_blocks", None)]  # diffusers'
    if not able:
        raise BadRecipe(f"compile: {', '.join(modules)} names no repeated blocks to compile; set it to false.")
    for module in able:
        module.compile_repeated_blocks(dynamic=True)  # type: ignore[operator]


def _inside(folder: Path, parts: tuple[str, ...]) -> Path:
    """The part of a pipeline's folder that holds the network, or the folder itself."""
    return next((folder / part for part in parts if (folder / part / "config.json").is_file()), folder)


def _class_name(folder: Path) -> str | None:
    """Name of the class whose config a folder holds, None where that cannot be told."""
    try:
        return json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None


def _build(kind: Any, recipe: ModelRecipe, section: str, inside: tuple[str, ...]) -> Any:
    if recipe.init_from is None:
        check_arguments(kind.__init__, recipe.config, f"{section}.config")
        try:
            return kind(**recipe.config)
        except (TypeError, ValueError) as error:
            raise BadRecipe(f"{section}.config: {error}.") from error
    if recipe.config:
        raise BadRecipe(f"{section}: init_from brings its own configuration; leave out {section}.config.")
    folder = _inside(model_folder(recipe.init_from), inside)
    if not (folder / "config.json").is_file():
        raise UnknownModel(f"{section}.init_from: no {kind.__name__} in {folder}: config.json is missing.")
    try:
        return kind.from_pretrained(str(folder), low_cpu_mem_usage=False).float()
    except (OSError, ValueError, RuntimeError) as error:
        raise UnknownModel(f"{section}.init_from: {folder} holds no {kind.__name__} that loads ({error}).") from error
