"""Another state of a network for a few calls: other weights, other layers, other strengths of its adapters.

Nothing is copied or computed: tensors, layers and factors change places, and change back when the block is left.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from longtake.errors import BadInput, UnknownModel, Unsupported

Pairs = Sequence[tuple[Tensor, Tensor]]
"""A network's own tensors, and those that take their places."""


def match_weights(network: nn.Module, other: Mapping[str, Tensor], whose: str) -> Pairs:
    """Pair a network's parameters and buffers with others of the same names.

    Args:
        network: of which all weights are wanted. other: may have more. whose: how messages call the others.

    Raises:
        BadInput: a weight is missing, or of another shape.
    """
    pairs, seen = [], set()
    for name, own in network.state_dict(keep_vars=True).items():
        if id(own) in seen:  # tied
            continue
        seen.add(id(own))
        if name not in other:
            raise BadInput(f"{whose} has no weight '{name}' of {type(network).__name__}; give one of the same network")
        new = other[name].detach()
        if new.shape != own.shape:
            raise BadInput(
                f"{whose} has '{name}' of {tuple(new.shape)} and {type(network).__name__} has {tuple(own.shape)}; give one "
                "of the same network"
            )
        pairs.append((own, new.to(own.device, own.dtype)))
    return pairs


@contextmanager
def other_weights(pairs: Pairs) -> Iterator[None]:
    """Within the block the network has the other weights."""
    _exchange(pairs)
    try:
        yield
    finally:
        _exchange(pairs)


def _exchange(pairs: Pairs) -> None:
    for own, new in pairs:
        if new.device != own.device:  # the pipeline has been moved since
            new.data = new.data.to(own.device)
        own.data, new.data = new.data, own.data


@contextmanager
def other_layers(replaced: Sequence[tuple[nn.Module, str, nn.Module, nn.Module]]) -> Iterator[None]:
    """Within the block layers are replaced: (module that holds it, its name there, the layer, what takes its place)."""
    for holder, name, _, new in replaced:
        setattr(holder, name, new)
    try:
        yield
    finally:
        for holder, name, old, _ in replaced:
            setattr(holder, name, old)


def adapted_layers(network: nn.Module, whose: str) -> list[Any]:
    """Layers of a network that carry adapters of PEFT whose strength can be set, such as LoRA.

    Raises:
        Unsupported: there is none, or they have been merged into the weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [m for m in network.modules() if isinstance(m, BaseTunerLayer) and hasattr(m, "set_scale")]
    if not layers:
        raise Unsupported(
            f"{whose} needs an adapter, and {type(network).__name__} has none; load one (load_lora_weights of the pipeline, "
            "or peft.inject_adapter_in_model)"
        )
    if any(layer.merged for layer in layers):
        raise Unsupported(
            f"{whose} needs an adapter that can be changed, and it is merged into the weights; unmerge it"
        )
    return layers


@contextmanager
def other_strength(layers: Sequence[Any], scale: float) -> Iterator[None]:
    """Within the block the active adapters act `scale` times as strongly as they were trained to; any sign."""
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            for adapter in layer.active_adapters:
                layer.set_scale(adapter, scale)
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.scaling.update(own)


def read_weights(path: str, network: Any, model: str) -> Mapping[str, Tensor]:
    """Weights of a network of the same class.

    Args:
        path: folder of a pipeline or of a network as diffusers saves them, or a .safetensors file.
        network: whose class reads a folder. model: its name in a pipeline, "transformer" or "transformer_2".

    Raises:
        UnknownModel: nothing there that can be read.
    """
    where = Path(path)
    try:
        if where.is_file() and where.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(where)
        folder = where / model if (where / model).is_dir() else where
        if folder.is_dir():
            return type(network).from_pretrained(str(folder), low_cpu_mem_usage=False).state_dict()
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnknownModel(f"'{path}' holds no weights of {type(network).__name__} that load: {why}") from error
    raise UnknownModel(f"'{path}' is no folder and no .safetensors file; give the weaker weights of the same network")


def layer_at(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a layer of that dotted name, and the layer's name there."""
    parent, _, own = name.rpartition(".")
    return network.get_submodule(parent), own
