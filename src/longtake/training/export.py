"""What a training leaves for others to use: exported folders and samples."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from longtake.errors import BadOutput
from longtake.training.parallel import World, barrier, whole
from longtake.training.tasks import Task
from longtake.video import Clip


def export_task(task: Task, folder: Path, world: World) -> Path:
    """Save a task's networks, with the weights they hold now, under a temporary name and rename; all processes call it.

    Raises:
        BadOutput: the folder cannot be written.
    """
    modules = usable_modules(task, world)
    if world.main:
        partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            task.export(partial, modules)
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                os.replace(folder, old)
            os.replace(partial, folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise BadOutput(f"{folder}: the export cannot be written ({error.strerror or error}).") from error
    barrier(world)
    return folder


def usable_modules(task: Task, world: World) -> dict[str, nn.Module]:
    """The trained networks in a form that can be called and saved by one process: themselves, or gathered copies.

    All processes call it; only the first gets copies of sharded networks, the others an empty dictionary.
    """
    if world.kind not in ("fsdp", "hsdp"):
        return task.modules
    copies: dict[str, nn.Module] = {}
    for name, module in task.modules.items():
        weights = {key: whole(value.detach()) for key, value in module.state_dict().items()}
        if world.main:
            copies[name] = _unsharded(module, weights).to(world.device)
    return copies


def _unsharded(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A new network of the same configuration with the given weights.

    FSDP swaps a module's class for one of its own that has the true class behind it.
    """
    kind = next(k for k in type(module).__mro__ if not issubclass(k, FSDPModule))
    config = getattr(module, "config", None)
    if config is None:
        copy = kind(**getattr(module, "arguments", {}))
    else:
        copy = (
            kind.from_config(config) if hasattr(kind, "from_config") and hasattr(kind, "save_config") else kind(config)
        )
    copy.load_state_dict(weights)
    return copy.eval().requires_grad_(False)


def write_samples(folder: Path, step: int, clips: Sequence[tuple[str, Clip]]) -> Path:
    """Write clips as ``step-N-I.mp4``, one PNG sheet of all of them and their captions; return the sheet's path."""
    from longtake.video import contact_sheet, write_clip

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"step-{step:08d}"
    for index, (_, clip) in enumerate(clips):
        write_clip(clip, folder / f"{stem}-{index:02d}.mp4")
    (folder / f"{stem}.txt").write_text("".join(f"{index:02d} {caption}\n" for index, (caption, _) in enumerate(clips)))
    sheet = folder / f"{stem}.png"
    contact_sheet([clip for _, clip in clips], sheet, captions=[caption for caption, _ in clips])
    return sheet
