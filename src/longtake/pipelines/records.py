"""Records: what made a clip, as JSON beside it (`clip.mp4` -> `clip.json`), enough to make the same clip again.

The part under `settings` is what is replayed, together with the model's name, the scheduler, the dtype, the device and
the number of threads; on the same machine the clip then comes out bit for bit. Frames that were given are stored as
path and SHA-256, so a changed file is noticed. The rest is for people and tables: times, memory, versions, warnings.
"""

import hashlib
import json
import os
import platform
import resource
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from longtake.errors import BadInput, BadOutput, BadRecipe, LongtakeError, nearest
from longtake.video import Clip, write_bytes, write_clip
from longtake.video.writing import check_folder

FORMAT = 1
"""Number of the record's layout; a record of another layout is refused."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")


@dataclass(frozen=True)
class Source:
    """A file that frames or sound were given from. `path` is None when they were tensors; `sha256` is of the file's bytes,
    or of the values when there was no file."""

    path: str | None
    sha256: str


@dataclass(frozen=True)
class Settings:
    """Everything that was asked for: the arguments of a `VideoPipeline` call, with given frames as sources, and the methods
    that were applied, as they are written on the command line. guidance_2: of the second network of Wan 2.2. drawing: how
    a pipeline that writes tokens draws them. audio: the sound that the clip is made to."""

    prompt: str
    negative_prompt: str = ""
    frames: int = 17
    height: int = 64
    width: int = 64
    steps: int = 30
    guidance: float = 4.0
    seed: int = 0
    count: int = 1
    image: Source | None = None
    last_image: Source | None = None
    continue_from: Source | None = None
    methods: tuple[str, ...] = ()
    guidance_2: float | None = None
    drawing: dict[str, Any] | None = None
    audio: Source | None = None


@dataclass(frozen=True)
class Seconds:
    """Wall time of the three parts of a run."""

    text: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True)
class Record:
    """One run. `weights` is a SHA-256 over all networks, of a pipeline of diffusers over its denoisers; `scheduler` holds
    its class name and its configuration; `peak_memory_bytes` is of the process on a CPU and of the device's allocator on a
    GPU; `receipts` say what each method did, see `longtake.runtime.receipts`."""

    settings: Settings
    model: str
    weights: str
    scheduler: dict[str, Any]
    fps: float
    dtype: str
    device: str
    threads: int
    seconds: Seconds = Seconds()
    peak_memory_bytes: int = 0
    receipts: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """The record as indented JSON with a final line break."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_record(path: str | Path) -> Record:
    """Read a record. Raises BadRecipe for no file, no JSON, another layout, an unknown key or a value of a wrong kind."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRecipe(f"record '{path}' cannot be read: {why}; give the .json that generate wrote.") from None
    except json.JSONDecodeError as error:
        raise BadRecipe(f"record '{path}' is not JSON: {error}; give the .json that generate wrote.") from None
    if not isinstance(content, dict):
        raise BadRecipe(f"record '{path}' holds a {type(content).__name__}, expected an object with 'settings'.")
    if content.get("format", FORMAT) != FORMAT:
        raise BadRecipe(f"record '{path}' has format {content['format']!r}; this version reads format {FORMAT}.")
    return _build(Record, content, f"record '{path}'")


_NESTED: dict[str, type] = {
    "settings": Settings,
    "seconds": Seconds,
    "image": Source,
    "last_image": Source,
    "continue_from": Source,
    "audio": Source,
}

_GIVEN = ("image", "last_image", "continue_from", "audio")


def _build(kind: type, content: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass of a JSON object, checking names and kinds."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in hints:
            raise BadRecipe(f"{where}: unknown key '{key}'.{nearest(key, hints)}")
        if key in _NESTED and value is not None:
            if not isinstance(value, dict):
                raise BadRecipe(f"{where}: {key} is {value!r}, expected an object.")
            value = _build(_NESTED[key], value, f"{where}, {key}")
        elif key in ("warnings", "receipts", "methods"):
            value = tuple(value)
        elif hints[key] is float and type(value) is int:
            value = float(value)
        elif hints[key] in (str, int, float) and type(value) is not hints[key]:
            raise BadRecipe(f"{where}: {key} is {value!r}, expected {hints[key].__name__}.")
        values[key] = value
    required = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    for key in required:
        if key not in values:
            raise BadRecipe(f"{where}: '{key}' is missing; give the .json that generate wrote.")
    return kind(**values)


# ------------------------------------------------------------------------------------------------ what a record states


def versions() -> dict[str, str]:
    """Versions of what decides the numbers of a clip."""
    found = {"python": platform.python_version()}
    for name in ("longtake", "torch", "diffusers", "transformers", "av", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, threads that torch uses, system, GPU if there is one; not the machine's name."""
    processor, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def peak_memory(device: torch.device) -> int:
    """Bytes: the process's largest resident set so far on a CPU, the allocator's largest on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def weights_hash(networks: Mapping[str, nn.Module], *, dtype: torch.dtype | None = None) -> str:
    """SHA-256 over names, shapes and bytes of all parameters and buffers, sorted by name.

    With `dtype` every floating tensor is rounded to it first, so that a copy in a wider dtype has the same hash.
    """
    digest = hashlib.sha256()
    for name, network in sorted(networks.items()):
        for key, value in sorted(network.state_dict().items()):
            value = value.detach().cpu()
            value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
            digest.update(f"{name}.{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_of(pipe: Any) -> str:
    """SHA-256 over all networks of a pipeline of ours, of diffusers, or around one of diffusers."""
    own = getattr(pipe, "weights", None)
    if callable(own):
        return str(own())
    parts = getattr(pipe, "pipe", pipe).components
    return weights_hash({name: part for name, part in parts.items() if isinstance(part, nn.Module)})


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def command_line(settings: Settings, model: str, out: str | Path) -> str:
    """The command that asks for the same settings. Frames given as tensors have no file and are named `?`."""
    words = ["longtake", "generate", settings.prompt, "--model", model, "--out", str(out), "--seed", str(settings.seed)]
    words += ["--frames", str(settings.frames), "--size", f"{settings.width}x{settings.height}"]
    words += ["--steps", str(settings.steps), "--guidance", f"{settings.guidance:g}"]
    if settings.guidance_2 is not None:
        words += ["--guidance-2", f"{settings.guidance_2:g}"]
    if settings.negative_prompt:
        words += ["--negative", settings.negative_prompt]
    for option in _GIVEN:
        source = getattr(settings, option)
        if source is not None:
            words += ["--" + option.replace("_", "-"), source.path or "?"]
    if settings.methods:
        words += ["--with", "+".join(settings.methods)]
    if settings.count > 1:
        words += ["--count", str(settings.count)]
    return shlex.join(words)


def check_sources(settings: Settings) -> None:
    """Raise BadInput when a file that was given is missing, has changed, or never was a file."""
    for option in _GIVEN:
        source: Source | None = getattr(settings, option)
        if source is None:
            continue
        if source.path is None:
            raise BadInput(f"{option} of the record was given as a tensor, not as a file: it cannot be made again.")
        if not Path(source.path).is_file():
            raise BadInput(f"{option} of the record, '{source.path}', is not there any more.")
        found = file_hash(source.path)
        if found != source.sha256:
            raise BadInput(
                f"{option} of the record, '{source.path}', has changed since (SHA-256 {found[:12]}, the record has "
                f"{source.sha256[:12]}); put the first one back, or generate anew."
            )


# ------------------------------------------------------------------------------------------------------------- writing


def record_path(out: str | Path) -> Path:
    """Where the record of a clip is written: `clip.mp4` -> `clip.json`."""
    return Path(out).with_suffix(".json")


def check_output(out: str | Path, *, frames: int, height: int, width: int) -> None:
    """Raise BadOutput when a clip and its record cannot be written to `out`: call it before any work is done.

    Checks suffix, folder, permission, and that the disk holds a quarter of the raw bytes (H.264 rarely takes as much) and
    64 KiB.
    """
    out = Path(out)
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise BadOutput(f"{out} cannot be written: its suffix is not one of {', '.join(VIDEO_SUFFIXES)}.")
    check_folder(out)
    check_folder(record_path(out))
    needed = frames * height * width * 3 // 4 + 65536
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise BadOutput(f"{out} cannot be written: the disk has {free} bytes left and about {needed} are needed.")


def write_output(clip: Clip, record: Record, out: str | Path) -> None:
    """Write a clip and its record so that both are new or neither: BadOutput leaves nothing behind."""
    out = Path(out)
    temporary = out.with_name(f".{out.stem}.{secrets.token_hex(4)}{out.suffix}")
    try:
        write_clip(clip, temporary)
        write_bytes(record_path(out), record.to_json().encode())
        os.replace(temporary, out)
    except LongtakeError as error:
        raise BadOutput(str(error).replace(str(temporary), str(out))) from None
    except OSError as error:
        raise BadOutput(f"{out} cannot be written: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)
