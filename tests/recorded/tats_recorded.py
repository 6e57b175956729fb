"""Small networks in the layout of the official TATS: the numbers recorded from it, and what its weights were made with."""

import json
from pathlib import Path

import torch
from latte_recorded import fill
from safetensors import safe_open
from torch import Tensor

FILE = Path(__file__).parent / "tats_official.safetensors"
ONES = ("norm1.weight", "norm2.weight", "final_block.0.weight", "ln1.weight", "ln2.weight", "ln_f.weight")


def recorded(name: str) -> Tensor:
    with safe_open(FILE, framework="pt") as file:
        return file.get_tensor(name)


def official_weights(network: str, prefix: str = "") -> dict[str, Tensor]:
    """The weights that a recorded network had: "vqgan.batch", "vqgan.group", "gpt.class", "gpt.none", "gpt.gaps", ..."""
    with safe_open(FILE, framework="pt") as file:
        shapes = json.loads(file.metadata()[network])
    return {prefix + name: _value(name, tuple(shape)) for name, shape in shapes.items()}


def _value(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    value = fill(shape, name, 1.0 if name.startswith("codebook") else 0.1 if "conv" in name else 0.2)
    if name.endswith("running_var"):
        return value.abs() + 0.5
    return value + 1 if name.endswith(ONES) else value
