"""What a training leaves for others to use: exported folders and samples."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from longtake.errors import BadOutput
from longtake.training.parallel import World, barrier, whole
from longtake.training.tasks import Task
from longtake.video import Clip


def export_task(task: Task, folder: Path, world: World) -> Path:
    """Save a task's networks, with the weights they hold now, under a temporary name and rename; all processes call it.

    Raises:
        BadOutput: the folder cannot be written.
    """
    weights: dict[str, dict[str, Tensor]] = {}
    for name, module in task.modules.items():
        weights[name] = {key: whole(value.detach()).cpu() for key, value in module.state_dict().items()}
    if world.main:
        partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            task.export(partial, weights)
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


def detached_copy(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A new unsharded network of the same configuration on the CPU, with the given weights."""
    kind = type(module)
    with torch.random.fork_rng(devices=[]):
        build = getattr(kind, "from_config", None) if hasattr(module, "register_to_config") else kind
        copy: nn.Module = build(module.config)  # type: ignore[misc]
    copy.load_state_dict(weights)
    return copy.eval()


def write_samples(folder: Path, step: int, clips: Sequence[tuple[str, Clip]]) -> Path | None:
    """Write clips as ``step-N-I.mp4``, one PNG sheet of all of them and their captions; return the sheet's path."""
    from longtake.video import contact_sheet, write_clip

    if not clips:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"step-{step:08d}"
    for index, (_, clip) in enumerate(clips):
        write_clip(clip, folder / f"{stem}-{index:02d}.mp4")
    (folder / f"{stem}.txt").write_text("".join(f"{index:02d} {caption}\n" for index, (caption, _) in enumerate(clips)))
    sheet = folder / f"{stem}.png"
    contact_sheet([clip for _, clip in clips], sheet)
    return sheet
