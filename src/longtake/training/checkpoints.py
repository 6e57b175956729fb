"""Checkpoints: whole or absent, resumable on any number of processes, and free of pickle.

A checkpoint is a folder ``checkpoints/step-00000500``: safetensors shards written by torch.distributed.checkpoint
(weights, their average, optimiser state), ``random-R.safetensors`` with the random states of process R, and
``state.json`` with everything that is not a tensor. It is written under another name and renamed when complete, so a
killed run leaves whole checkpoints only. ``latest`` and ``best`` are files that hold a folder's name.
"""

import json
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from longtake.errors import BadOutput, BadRecipe
from longtake.training.parallel import World, barrier


def write_checkpoint(
    root: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], world: World, *, keep: int, best: bool
) -> Path:
    """Write a checkpoint and prune old ones; every process must call it.

    Args:
        root: folder of all checkpoints.
        step: completed steps.
        tensors: name -> tensor; DTensors are written as shards, others once.
        state: what JSON can hold.
        keep: how many of the latest stay; the best stays beside them.
        best: point ``best`` at this one.

    Raises:
        BadOutput: the disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    name = f"step-{step:08d}"
    folder, partial = root / name, root / f"{name}.partial"
    try:
        if world.main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier(world)
        with _quiet():  # pyright: ignore[reportCallIssue]
            writer = dcp.HuggingFaceStorageWriter(str(partial), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=world.size == 1)
        save_file(_random_states(world), partial / f"random-{world.rank}.safetensors")
        barrier(world)
        if world.main:
            (partial / "state.json").write_text(json.dumps({"step": step, **state}, indent=1))
            _sync(partial)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
            _point(root / "latest", name)
            if best:
                _point(root / "best", name)
            _prune(root, keep)
        barrier(world)
    except (Exception, CheckpointException) as error:  # safetensors and torch wrap a full disk in types of their own
        shutil.rmtree(partial, ignore_errors=True)
        raise BadOutput(
            f"{folder}: the checkpoint cannot be written ({_reason(error)}); free the disk and resume."
        ) from error
    return folder


def find_checkpoint(root: Path, pointer: str = "latest") -> Path | None:
    """Return the folder that ``latest`` or ``best`` points at; the newest whole one if the pointer is stale."""
    try:
        folder = root / (root / pointer).read_text().strip()
        if (folder / "state.json").is_file():
            return folder
    except OSError:
        pass
    whole = sorted(path.parent for path in root.glob("step-*/state.json") if path.parent.suffix != ".partial")
    return whole[-1] if whole else None


def read_state(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's ``state.json``."""
    return json.loads((folder / "state.json").read_text())


def read_checkpoint(folder: Path, tensors: dict[str, Tensor], world: World) -> dict[str, Any]:
    """Copy a checkpoint into the given tensors, restore the random states and return the JSON state.

    Raises:
        BadRecipe: the checkpoint is of another network or optimiser than the tensors.
    """
    try:
        with _quiet():  # pyright: ignore[reportCallIssue]
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=world.size == 1)
    except (Exception, CheckpointException) as error:
        raise BadRecipe(
            f"{folder}: the checkpoint does not fit this recipe ({_reason(error)}); resume with the recipe "
            "that wrote it, or choose another out."
        ) from error
    random = folder / f"random-{world.rank}.safetensors"
    if random.is_file():  # absent when more processes resume than wrote; they go on with their own
        _restore_random(load_file(random))
    return read_state(folder)


def _reason(error: BaseException) -> str:
    """The last line of an error, or of the first process's error among those of all processes."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    if not isinstance(error, Exception):
        raise error
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _random_states(world: World) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _prune(root: Path, keep: int) -> None:
    best = (root / "best").read_text().strip() if (root / "best").is_file() else ""
    folders = sorted(path for path in root.glob("step-*") if path.is_dir() and path.suffix != ".partial")
    for folder in folders[:-keep]:
        if folder.name != best:
            shutil.rmtree(folder, ignore_errors=True)
    for partial in root.glob("step-*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def _point(pointer: Path, name: str) -> None:
    partial = pointer.with_suffix(".partial")
    partial.write_text(name + "\n")
    os.replace(partial, pointer)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


class _quiet(warnings.catch_warnings):
    """torch.distributed.checkpoint warns and logs that there is one process, on every call."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*error)  # type: ignore[arg-type]
