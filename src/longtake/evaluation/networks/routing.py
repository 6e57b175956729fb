"""A token routing backbone that the user has trained, as a feature network; its folder is named as ``NAME=FOLDER``.

Features of a frame are the means over the map of its four scales: noise and texture are in the fine ones, objects in the
coarse ones. Features of a clip are the mean over its frames, and behind it the mean absolute change from one frame to the
next, without which the order of frames would not matter (ours).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from longtake.errors import BadInput
from longtake.evaluation.networks.contract import FeatureNetwork
from longtake.pipelines.records import weights_hash
from longtake.recognition.token_routing import TokenRoutingBackbone


def load_routing(
    name: str, folder: str | Path, device: torch.device | str = "cpu", *, frames: bool = False
) -> FeatureNetwork:
    """Load a feature network from the folder of a `TokenRoutingBackbone`.

    Args:
        name: printed with every number. folder: what the task ``classifier`` exports, or ``save_pretrained`` wrote.
        device: where it computes. frames: whether it shall see single frames.

    Raises:
        BadInput: the folder holds no such backbone.
    """
    try:
        backbone = TokenRoutingBackbone.from_pretrained(str(folder), low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"{folder} holds no TokenRoutingBackbone that loads ({error}); give a folder that does."
        ) from error
    told = weights_hash({name: backbone})
    network: nn.Module = nn.Module.to(backbone.eval().requires_grad_(False), device)

    def features(pixels: Tensor) -> Tensor:
        each = frame_features(network, pixels)
        return each.mean(1) if frames else clip_features(each)

    width = sum(backbone.config.widths) * (1 if frames else 2)
    facts = {"classes": len(backbone.config.classes), "folder": Path(folder).name}
    return FeatureNetwork(name, told, width, frames, features, facts=facts, device=torch.device(device))


def frame_features(network: nn.Module, pixels: Tensor) -> Tensor:
    """uint8 (B, 3, T, H, W) -> (B, T, D), the means over space of the four scales."""
    images = pixels.transpose(1, 2).flatten(0, 1).float().div(127.5).sub(1)
    found = network(images)
    return torch.cat([level.mean((2, 3)) for level in found.pyramid], dim=1).unflatten(0, (len(pixels), -1))


def clip_features(each: Tensor) -> Tensor:
    """Features of frames (B, T, D) -> (B, 2 D): their mean, and the mean absolute change; zeros where there is one frame."""
    change = each.diff(dim=1).abs()
    return torch.cat([each.mean(1), change.mean(1) if each.shape[1] > 1 else torch.zeros_like(each[:, 0])], dim=1)
