"""Published checkpoints to pipeline folders that `longtake.load` takes."""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from longtake.backbones.latte import Latte
from longtake.backbones.latte_layouts import from_diffusers, from_official
from longtake.errors import BadInput, BadOutput, UnknownModel
from longtake.pipelines.schedulers import noise_scheduler
from longtake.pipelines.text import load_text_encoder
from longtake.pipelines.video_pipeline import VideoPipeline
from longtake.tokenizers.frame_vae import load_image_autoencoder


def import_latte(
    source: str | Path,
    out: str | Path,
    *,
    autoencoder: str | Path | None = None,
    classes: Sequence[str] = (),
    heads: int | None = None,
    frames: int = 16,
    size: tuple[int, int] = (256, 256),
    fps: float = 8.0,
) -> Path:
    """Write a published Latte as a pipeline folder.

    Args:
        source: an official checkpoint (.pt, .pth or .safetensors), class-conditional or unconditional; or a folder of the
            text-to-video Latte as diffusers keeps it (`transformer`, `text_encoder`, `tokenizer`, `vae`, `scheduler`).
        out: folder to write, not there yet.
        autoencoder: folder of the `AutoencoderKL` that it was trained with; needed for a checkpoint file.
        classes: names of the classes, in order; default: their numbers.
        heads: of a checkpoint file of another width than the published ones.
        frames, size, fps: of the clips that it was trained on; size is (height, width).

    Raises:
        UnknownModel, BadInput: not such a checkpoint or folder. BadOutput: `out` is there already or cannot be written.
    """
    source = Path(source)
    check_new(out)
    clip_size = [frames, *size]
    if source.is_dir():
        pipe = _text_to_video(source, autoencoder, fps, clip_size)
    elif source.is_file():
        pipe = _checkpoint(source, autoencoder, list(classes), heads, fps, clip_size)
    else:
        raise UnknownModel(f"'{source}' is neither a checkpoint file nor a folder; check the path.")
    return write_pipeline(pipe, out)


def check_new(out: str | Path) -> None:
    """Raise BadOutput when a folder that is to be written is there already."""
    if Path(out).exists():
        raise BadOutput(f"{out} is there already: choose another folder, or move it away.")


def write_pipeline(pipe: DiffusionPipeline, out: str | Path) -> Path:
    """Save a pipeline into a folder that is not there yet, whole or not at all. Raises BadOutput."""
    out = Path(out)
    check_new(out)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise BadOutput(f"{out} cannot be written: {error.strerror}.") from None
    try:
        pipe.save_pretrained(str(partial))
        os.replace(partial, out)
    except OSError as error:
        raise BadOutput(f"{out} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def read_names(path: str | Path) -> list[str]:
    """Names of classes, one a line, in order. Raises BadInput for a file that cannot be read or names nothing."""
    try:
        names = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path} cannot be read as a list of names: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not names:
        raise BadInput(f"{path} names no class; write one name a line")
    return names


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint file; of one that training wrote, the averaged weights ("ema") before the others.

    Raises:
        BadInput: not a file of tensors. Nothing but tensors is ever read from a pickle.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings beside the weights: plain values
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        raise BadInput(
            f"{path} is no checkpoint that can be read safely ({str(error).splitlines()[0][:120]})"
        ) from None
    for name in ("ema", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BadInput(f"{path} holds a {type(content).__name__} of other things than weights; give a checkpoint")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _checkpoint(
    source: Path,
    autoencoder: str | Path | None,
    classes: list[str],
    heads: int | None,
    fps: float,
    clip_size: list[int],
) -> VideoPipeline:
    if autoencoder is None:
        raise BadInput(f"{source.name} is a transformer alone: name the folder of its AutoencoderKL (--autoencoder)")
    model = from_official(read_weights(source), heads)
    if model.config.text != "none":
        raise BadInput(
            f"{source.name} reads a CLIP text vector, for which there is no pipeline here; import it in Python"
        )
    count = model.config.classes
    if classes and len(classes) != count:
        raise BadInput(f"{len(classes)} names of classes were given and {source.name} has {count} classes")
    names = classes or [str(number) for number in range(count)]
    return VideoPipeline(
        load_image_autoencoder(autoencoder),
        model,
        None,
        None,
        noise_scheduler("ddpm" if model.config.learned_variance else "ddim"),
        fps=fps,
        classes=names,
        predicts="noise",
        clip_size=clip_size,
    )


def _text_to_video(source: Path, autoencoder: str | Path | None, fps: float, clip_size: list[int]) -> VideoPipeline:
    config = source / "transformer" / "config.json"
    try:
        kind = json.loads(config.read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        raise UnknownModel(f"'{source}' holds no Latte: {config} is missing or not JSON.") from None
    if kind != "LatteTransformer3DModel":
        raise UnknownModel(f"'{source}' holds a {kind}, not a LatteTransformer3DModel.")
    words, encoder = load_text_encoder(source / "text_encoder", source / "tokenizer")
    scheduler = noise_scheduler()
    if (source / "scheduler" / "scheduler_config.json").is_file():
        scheduler = DDIMScheduler.from_pretrained(str(source / "scheduler"), clip_sample=False)
    return VideoPipeline(
        load_image_autoencoder(source / "vae" if autoencoder is None else autoencoder),
        _read_latte(source / "transformer"),
        encoder,
        words,
        scheduler,
        fps=fps,
        predicts="noise",
        clip_size=clip_size,
    )


def _read_latte(folder: Path) -> Latte:
    from diffusers import LatteTransformer3DModel

    try:
        theirs = LatteTransformer3DModel.from_pretrained(str(folder), low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnknownModel(
            f"{folder} holds no LatteTransformer3DModel that loads ({str(error).splitlines()[0]})"
        ) from None
    return from_diffusers(theirs.config, theirs.state_dict())
