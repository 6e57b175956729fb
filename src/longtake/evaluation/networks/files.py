"""Feature networks from files that a user has: TorchScript, or I3D's weights as safetensors. Each is tried on a black
clip when it is loaded, so that a file that is not what it says is refused before anything is decoded.

=========== ========================= ============================================================== ==========
i3d         TorchScript, .safetensors f(clips, rescale=True, resize=True, return_features=True)      400 logits
inception   TorchScript               f(frames (B, 3, H, W), return_features=True)                   2048
any other   TorchScript               f(clips) or f(frames) -> features; ``name=FILE``                any
=========== ========================= ============================================================== ==========

Clips are uint8 (B, 3, T, H, W). A file that takes floats only is given the same numbers, 0 to 255, as floats.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.evaluation.networks.contract import FeatureNetwork
from longtake.evaluation.networks.i3d import CLASSES, i3d_features, load_i3d
from longtake.pipelines.records import file_hash

_FRAMES_TRIED = 16


@dataclass(frozen=True)
class _Way:
    """How a kind of file is called, what it gives, and how messages say that."""

    arguments: Mapping[str, bool]
    frames: bool
    width: int | None
    words: str


_WAYS = {
    "i3d": _Way(
        {"rescale": True, "resize": True, "return_features": True},
        False,
        CLASSES,
        "clips, with rescale, resize and return_features, as StyleGAN-V's I3D",
    ),
    "inception": _Way({"return_features": True}, True, 2048, "frames, with return_features, as NVIDIA's Inception-v3"),
}


def _any(frames: bool) -> _Way:
    return _Way({}, frames, None, f"{'frames' if frames else 'clips'} without further arguments")


def load_file(
    name: str, path: str | Path, device: torch.device | str = "cpu", *, frames: bool = False
) -> FeatureNetwork:
    """Load a feature network from a file.

    Args:
        name: "i3d", "inception", or another of the user's choice. path: .safetensors (of I3D) or TorchScript.
        device: where it computes. frames: whether a network of another name sees single frames.

    Raises:
        BadInput: no such file, or one that is not what it says: in one line, what it is and what to give instead.
    """
    path, device = Path(path), torch.device(device)
    if not path.is_file():
        raise BadInput(f"feature network '{path}' is not there: give a TorchScript file, or I3D's .safetensors.")
    way = _WAYS.get(name) or _any(frames)
    call = _load_safetensors(name, path, device) if path.suffix == ".safetensors" else _load_script(path, way, device)
    features, as_floats = _try(name, path, way, call, device)
    facts: dict[str, Any] = {"file": path.name, "called with": "float32 0-255" if as_floats else "uint8"}
    tried = {"i3d": _softmax(call), "c3d": _probabilities(call)}.get(name)
    return FeatureNetwork(
        name,
        file_hash(path),
        features.shape[1],
        way.frames,
        lambda pixels: call(pixels.float() if as_floats else pixels),
        None if tried is None else lambda pixels: tried(pixels.float() if as_floats else pixels),
        facts,
        device,
    )


def _load_safetensors(name: str, path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as read

    if name != "i3d":
        raise BadInput(f"feature network {name}={path}: .safetensors hold weights of I3D only; give TorchScript.")
    try:
        network = load_i3d(read(path), path).to(device)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"feature network '{path}' is not a safetensors file: {_line(error)}.") from None
    except ValueError as error:
        raise BadInput(f"feature network {error}: give I3D's weights, or TorchScript as NAME=FILE.") from None
    return lambda pixels: i3d_features(network, pixels)


def _load_script(path: Path, way: _Way, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is on its way out of torch, and what these files are
            script = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise BadInput(
            f"feature network '{path}' is not TorchScript ({_line(error)}): give a file of torch.jit.save."
        ) from None
    arguments = dict(way.arguments)
    if way.frames:
        return lambda pixels: script(pixels[:, :, 0], **arguments)
    return lambda pixels: script(pixels, **arguments)


def _try(
    name: str, path: Path, way: _Way, call: Callable[[Tensor], Tensor], device: torch.device
) -> tuple[Tensor, bool]:
    """Features of a black clip, and whether it had to be given as floats."""
    black = torch.zeros(1, 3, 1 if way.frames else _FRAMES_TRIED, 64, 64, dtype=torch.uint8, device=device)
    why: Exception | None = None
    for as_floats in (False, True):
        try:
            with torch.no_grad():
                found = call(black.float() if as_floats else black)
            break
        except Exception as error:  # TorchScript raises what it likes
            why = why or error
    else:
        raise BadInput(
            f"feature network '{path}' is not {name}: it does not take {way.words} ({_line(why)}): "
            f"give {'the right file' if way.width is None else f'it as another network, myname={path.name}'}."
        )
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 1 or not found.is_floating_point():
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise BadInput(f"feature network '{path}' is not {name}: it gave {what} for one clip, not (1, features).")
    if way.width is not None and found.shape[1] != way.width:
        raise BadInput(
            f"feature network '{path}' is not {name}: it gives {found.shape[1]} features and {name} gives {way.width}; "
            f"give it as another network, myname={path.name}, or give the right file."
        )
    if not found.isfinite().all():
        raise BadInput(f"feature network '{path}' gives numbers that are not finite for a black clip: another file.")
    return found, as_floats


def _softmax(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda pixels: call(pixels).softmax(1)


def _probabilities(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The outputs of a classifier, after a softmax unless they are probabilities already."""

    def probabilities(pixels: Tensor) -> Tensor:
        found = call(pixels)
        already = bool((found >= 0).all()) and bool(((found.sum(1) - 1).abs() < 1e-3).all())
        return found if already else found.softmax(1)

    return probabilities


def _line(error: Exception | None) -> str:
    """The sentence of an error that says most: TorchScript puts its own trace in front, and advice behind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [line for line in lines if line.startswith(("RuntimeError:", "Expected", "Unknown keyword"))]
    return (said or lines)[-1 if said else 0].split(". ")[0].removesuffix(".")[:200]
