"""From a recipe to finished stages: joins the processes, refuses what would overwrite, hands over to the loop."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from longtake.data.order import mix_seed
from longtake.errors import BadOutput, LongtakeError
from longtake.training.checkpoints import find_checkpoint, read_state
from longtake.training.loop import Loop, Result
from longtake.training.parallel import World, joined_world
from longtake.training.recipe import Recipe, load_recipe, to_yaml
from longtake.training.stopping import stop_flag
from longtake.training.tasks import Task, build_task


def train(
    recipe: str | Path, overrides: Sequence[str] = (), *, resume: bool = False, export_only: bool = False
) -> list[Result]:
    """Train what a recipe file says, all its stages in order.

    Args:
        recipe: path of a YAML file, see `longtake.training.recipe`.
        overrides: ``key=value`` pairs that win over the file.
        resume: go on from the latest checkpoint of each stage (from the start where there is none).
        export_only: train nothing; export what the latest checkpoint of each stage that was begun holds.

    Returns:
        One result per stage; the last one says why training stopped.

    Raises:
        BadRecipe, BadData, BadOutput, UnknownModel: what was asked for cannot be trained.
        TrainingDiverged: the loss or the gradient is not finite; the last good checkpoint is named.
    """
    results = []
    for stage in load_recipe(recipe, overrides):
        if export_only and results and find_checkpoint(Path(stage.out) / "checkpoints") is None:
            break
        results.append(run(stage, resume=resume, export_only=export_only))
        if results[-1].stopped != "finished" and not export_only:
            break
    return results


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    export_only: bool = False,
    task: Callable[[Recipe, World], Task] = build_task,
) -> Result:
    """Train one stage; see `train`. ``task`` builds what is trained."""
    out = Path(recipe.out)
    with torch.random.fork_rng(), joined_world(recipe.parallel, recipe.device) as world, stop_flag() as stop:
        begun = find_checkpoint(out / "checkpoints")
        if export_only and begun is None:
            raise BadOutput(f"{out} holds no checkpoint to export; train first, or check out.")
        if begun is not None and not (resume or export_only):
            raise BadOutput(
                f"{out} holds a training at step {read_state(begun)['step']}: resume it (--resume), or choose another "
                "folder (out=...)."
            )
        if begun is not None and not export_only and read_state(begun)["step"] >= recipe.steps:
            state, export = read_state(begun), out / "export"
            if export.is_dir() or not recipe.export:
                made = export if recipe.export else None
                return Result(out, state["step"], "finished", state["seconds"], made, state["before"], state["after"])
        new = next((folder for folder in (*reversed(out.parents), out) if not folder.exists()), None)
        try:
            (out / "checkpoints").mkdir(parents=True, exist_ok=True)
            (out / "recipe.yaml").write_text(to_yaml(recipe)) if world.main else None
        except OSError as error:
            raise BadOutput(f"{out}: cannot be written ({error.strerror}).") from error
        torch.manual_seed(mix_seed(recipe.seed, 0))  # noqa: TID251  new weights and dropout draw from the global state
        try:
            work = Loop(recipe, out, world, task(recipe, world), begun)
        except LongtakeError:  # nothing to train, or nothing to train on: no empty folder stays behind
            if new is not None and world.main:
                _take_back(out, new)
            raise
        return work.only_export() if export_only else work.go(stop)


def _take_back(out: Path, first: Path) -> None:
    """Remove what a run that never began has written, and its folders from the innermost to `first` that are empty."""
    (out / "recipe.yaml").unlink(missing_ok=True)
    for folder in (out / "checkpoints", out, *out.parents):
        try:
            folder.rmdir()
        except OSError:  # something else lies there, such as a cache
            return
        if folder == first:
            return
