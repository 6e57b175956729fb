"""Feature networks by name: the shipped ones, random ones, and files of the user's."""

from pathlib import Path

import torch
from torch import nn

import longtake
from longtake.errors import BadInput, UnknownName, nearest
from longtake.evaluation.networks.contract import FeatureNetwork
from longtake.evaluation.networks.files import load_file
from longtake.evaluation.networks.routing import load_routing
from longtake.evaluation.networks.scene_classifier import (
    RANDOM_SEED,
    WIDTHS,
    WINDOW,
    SceneClassifier,
    random_classifier,
)
from longtake.evaluation.protocol import digest
from longtake.pipelines.records import weights_hash

STARTERS = Path(longtake.__file__).parent / "starters"
VIDEO_NETWORKS = ("i3d", "scenes-3d", "random-3d")
FRAME_NETWORKS = ("inception", "scenes-2d", "random-2d")
SHIPPED_LIMIT = 8 * 2**20
"""Bytes that a shipped network may take on disk."""


def load_network(
    name: str,
    *,
    frames: bool = False,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FeatureNetwork:
    """Load a feature network.

    Args:
        name: "scenes-3d", "random-3d" (or -2d); ``NAME=FILE`` for a file of the user's, or a file alone, which is taken
            for the published network, I3D or Inception; ``NAME=FOLDER`` for a token routing backbone.
        frames: whether one of single frames is wanted.
        folder: where the shipped networks are; the package's own by default.
        device, dtype: where and in which it computes; files of the user's compute as they were made.

    Raises:
        UnknownName: no such name and no such file. BadInput: a file that is not what it says, one that sees frames in
            place of clips or the reverse, or a published network without its file.
    """
    known = FRAME_NETWORKS if frames else VIDEO_NETWORKS
    own, equals, file = name.partition("=")
    if equals and Path(file).is_dir():
        network = load_routing(own, file, device, frames=frames)
    elif equals:
        network = load_file(own, file, device, frames=frames)
    elif Path(name).suffix or Path(name).is_file():
        network = load_file("inception" if frames else "i3d", name, device)
    elif name in ("i3d", "inception"):
        option = "--frame-network" if frames else "--network"
        raise BadInput(
            f"{name} is not shipped, since it was trained by others: give its TorchScript file, {option} FILE, or "
            f"{option} {known[1]} for another number under another name."
        )
    elif name not in known:
        raise UnknownName(f"no feature network of {_kind(frames)} is called '{name}'.{nearest(name, known)}")
    elif name.startswith("random"):
        network = _random(name, device, dtype)
    else:
        network = load_shipped(name, folder, device, dtype)
    if network.frames != frames:
        raise BadInput(f"network {network.name} sees {_kind(network.frames)}; one of {_kind(frames)} is wanted here.")
    return network


def load_shipped(
    name: str,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FeatureNetwork:
    """Load scenes-3d or scenes-2d, with its own accuracy and training record in `facts`. Raises BadInput."""
    place = (folder or STARTERS) / name
    if not (place / "config.json").is_file():
        raise BadInput(f"network {name} is missing from {place.parent}: install longtake whole, or fit it again.")
    classifier = SceneClassifier.from_pretrained(str(place), low_cpu_mem_usage=False)
    facts = {"own_accuracy": classifier.config.own_accuracy, "training": classifier.config.training}
    told = weights_hash({name: classifier})
    classifier = nn.Module.to(classifier.eval().requires_grad_(False), device, dtype)
    return _of(name, told, classifier, torch.device(device), facts)


def _random(name: str, device: torch.device | str, dtype: torch.dtype) -> FeatureNetwork:
    window = WINDOW if name == "random-3d" else 1
    told = digest([name, RANDOM_SEED, list(WIDTHS), window])  # its last digits may differ between machines
    return _of(
        name, told, nn.Module.to(random_classifier(window), device, dtype), torch.device(device), {"seed": RANDOM_SEED}
    )


def _of(name: str, told: str, classifier: SceneClassifier, device: torch.device, facts: dict) -> FeatureNetwork:
    return FeatureNetwork(
        name,
        told,
        classifier.width,
        classifier.config.window == 1,
        classifier.features,
        classifier.probabilities if "motion" in classifier.outputs else None,
        facts,
        device,
    )


def _kind(frames: bool) -> str:
    return "single frames" if frames else "clips"
