"""Finding and loading pipelines: a starter's name, a folder, or a hub id."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import longtake
from longtake.errors import BadInput, UnknownModel, nearest
from longtake.pipelines.foreign.pipeline import DIALECTS, ForeignPipeline
from longtake.pipelines.video_pipeline import VideoPipeline
from longtake.tokenizers.causal_vae import CausalVAE

if TYPE_CHECKING:  # a floor above; at run time it is taken by name from the front door
    from longtake.autoregressive.tats.pipeline import TatsPipeline

STARTERS = Path(longtake.__file__).parent / "starters"
"""Where the shipped pipelines are, one folder each."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_OURS = ("VideoPipeline", "TatsPipeline")  # names at the front door
_HUB_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.model", "*/*.txt"]


def starter_names() -> tuple[str, ...]:
    """Names of the pipelines that are shipped with the package."""
    return tuple(sorted(index.parent.name for index in STARTERS.glob("*/model_index.json")))


def load(
    name: str | Path = "starter", *, dtype: str | torch.dtype | None = None, device: str = "cpu"
) -> "VideoPipeline | TatsPipeline | ForeignPipeline":
    """Load a pipeline, of ours or text to video of diffusers.

    Args:
        name: a starter's name, a folder that `save_pretrained` wrote, or a hub id `owner/name` (which is downloaded unless
            it is in the local cache; only JSON and safetensors files are ever fetched).
        dtype: "float32", "bfloat16" or "float16"; None is float32 on a CPU and bfloat16 elsewhere. Wan's autoencoder stays
            in float32, as it is published, and TATS's tokenizer.
        device: where it runs, "cpu", "cuda", "cuda:1".

    Returns:
        A `VideoPipeline`, a `TatsPipeline`, or a `ForeignPipeline` around one of diffusers; all are called in the same way.
        Offloading is the latter's own, `load(name).pipe.enable_model_cpu_offload()`.

    Raises:
        UnknownModel: none of the three, or a pipeline of another class; one line with the nearest starter, or the classes.
        BadInput: an unknown dtype or a device that is not there.
    """
    folder = pipeline_folder(name)
    where = _device(device)
    kind = _dtype(dtype, where)
    family = _class_of(folder, str(name))
    if family not in _OURS:
        return _load_foreign(folder, name, kind, where)
    family: Any = getattr(longtake, family)
    # Through float32 to float16, which rounds otherwise than the tokenizer's hash does (see `check_tokenizer`).
    first, exact = torch.float32 if kind == torch.float16 else kind, getattr(family, "exact", ())
    dtypes = {"default": first, **dict.fromkeys(exact, torch.float32)} if exact else first
    try:
        pipe = family.from_pretrained(str(folder), dtype=dtypes, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UnknownModel(f"'{name}' does not load as a pipeline: {_first_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    pipe.register_to_config(_name_or_path=str(name))
    for part, network in pipe.components.items():
        if isinstance(network, torch.nn.Module):
            own = torch.float32 if part in exact else kind
            torch.nn.Module.to(network.eval().requires_grad_(False), own)  # ModelMixin.to warns of what is not so here
    return pipe.to(where)


def load_tokenizer(name: str | Path = "starter", *, device: str = "cpu") -> CausalVAE:
    """Load only the tokenizer of a pipeline, or of a folder that holds nothing else. Arguments and errors as `load`."""
    alone = Path(name)
    folder = alone if (alone / "config.json").is_file() else pipeline_folder(name) / "tokenizer"
    where = _device(device)
    try:
        tokenizer = CausalVAE.from_pretrained(str(folder), dtype=torch.float32, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UnknownModel(f"'{name}' holds no tokenizer that loads: {_first_line(error)}") from error
    return tokenizer.eval().requires_grad_(False).to(where)


def pipeline_folder(name: str | Path) -> Path:
    """The folder of a pipeline by name, downloaded when it is a hub id. Raises UnknownModel."""
    starters = starter_names()
    if name in starters:
        return STARTERS / str(name)
    folder = Path(name)
    if folder.is_dir():
        return _checked(folder, str(name))
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)):
        return _checked(_download(str(name), starters), str(name))
    raise UnknownModel(
        f"no model is called '{name}': it is no starter, no folder and no hub id.{_hint(name, starters)}"
    )


def _checked(folder: Path, name: str) -> Path:
    index = folder / "model_index.json"
    if not index.is_file():
        raise UnknownModel(f"'{name}' holds no pipeline: {index.name} is missing; give what save_pretrained wrote.")
    kind = _class_of(folder, name)
    if kind not in (*_OURS, *DIALECTS):
        known = ", ".join((*_OURS, *DIALECTS))
        raise UnknownModel(f"'{name}' holds a {kind}, and longtake.load takes {known}; load this one with diffusers.")
    return folder


def _class_of(folder: Path, name: str) -> str:
    """The pipeline's class, by its index. Raises UnknownModel."""
    index = folder / "model_index.json"
    try:
        return str(json.loads(index.read_text()).get("_class_name"))
    except (ValueError, AttributeError):
        raise UnknownModel(f"'{name}' holds no pipeline: {index.name} is not a JSON object.") from None


def _load_foreign(folder: Path, name: str | Path, kind: torch.dtype, where: torch.device) -> ForeignPipeline:
    """A pipeline of diffusers, of one of the families. Raises UnknownModel."""
    import diffusers

    family = _class_of(folder, str(name))
    dtypes = {"default": kind, **dict.fromkeys(DIALECTS[family].exact, torch.float32)}
    try:
        pipe = getattr(diffusers, family).from_pretrained(
            str(folder), dtype=dtypes, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UnknownModel(f"'{name}' does not load as a pipeline: {_first_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    pipe.register_to_config(_name_or_path=str(name))
    for network in pipe.components.values():
        if isinstance(network, torch.nn.Module):
            network.eval().requires_grad_(False)
    loaded = ForeignPipeline(pipe.to(where))
    loaded.dialect.settle()
    return loaded


def _download(name: str, starters: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError  # HTTPError: that of the client it uses

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, etag_timeout=10))
    except RepositoryNotFoundError:
        why = "the hub has no such repository, or it is private"
    except (OSError, ValueError, HTTPError) as error:
        why = f"the hub cannot be reached and it is not in the local cache ({type(error).__name__})"
    raise UnknownModel(f"no model '{name}': it is no starter and no folder, and {why}.{_hint(name, starters)}")


def _hint(name: str | Path, starters: tuple[str, ...]) -> str:
    return nearest(str(name).rpartition("/")[2], starters) if starters else " No starter is installed."


def _device(device: str) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device '{device}' is not there: {_first_line(error)}") from None
    return found


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise BadInput(f"dtype '{dtype}' is unknown.{nearest(dtype, _DTYPES)}")
    return _DTYPES[dtype]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
