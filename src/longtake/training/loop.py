"""The training loop: one function for every task, from one CPU process to sharded GPUs.

What makes a resumed run bit-identical to an unbroken one: the order of the data and every sample's noise are functions
of (seed, position in the stream); the global random state is stored; losses are recorded for every step and rows behind
the checkpoint are cut on resume. What makes the number of processes irrelevant: ``batch_size`` counts the clips of all
processes, each sample has a seed of its own, and gradients are means over equal shares.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longtake.errors import BadRecipe, TrainingDiverged
from longtake.training.batches import Stream, held_out_batches
from longtake.training.checkpoints import find_checkpoint, read_checkpoint, write_checkpoint
from longtake.training.curves import Curve, draw_curves, open_board
from longtake.training.ema import Ema
from longtake.training.export import export_task, usable_modules, write_samples
from longtake.training.models import checkpoint_gradients, compile_blocks
from longtake.training.optimizers import build_optimizers, optimizer_tensors, set_rate
from longtake.training.parallel import (
    World,
    any_in_world,
    barrier,
    forget_gathered,
    mean_over_world,
    shard,
    whole,
)
from longtake.training.progress import Progress, clock
from longtake.training.recipe import Recipe, data_parts
from longtake.training.schedule import rate_share
from longtake.training.tasks import Batch, Task


@dataclass
class Result:
    """How a training ended.

    Attributes:
        out: the run's folder. export: the exported folder, or None.
        step: completed steps. stopped: "finished", "time limit", "signal", or "export" where nothing was trained.
        seconds: of this and all earlier sittings.
        before, after: held-out values at step 0 and at the end (empty without validation).
    """

    out: Path
    step: int
    stopped: str
    seconds: float
    export: Path | None = None
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


class _Loss(nn.Module):
    """The task's loss as a module, which is what DDP wraps: its hooks act on `forward`."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.trained = task, nn.ModuleDict(task.modules)

    def forward(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.loss(batch, seeds)


class Loop:
    """One stage's state: networks, optimisers, average, data order, curves."""

    def __init__(self, recipe: Recipe, out: Path, world: World, task: Task, begun: Path | None) -> None:
        self.recipe, self.out, self.world, self.task = recipe, out, world, task
        train_sets, self.held_out = task.data()
        for module in task.modules.values():
            module.train()
        if recipe.gradient_checkpointing:
            checkpoint_gradients(task.modules)
        if recipe.compile:
            compile_blocks(task.modules)
        if world.kind in ("fsdp", "hsdp"):
            shard(task.modules.values(), world)
        self.parameters = {
            f"{name}.{inner}": p
            for name, module in task.modules.items()
            for inner, p in module.named_parameters()
            if p.requires_grad
        }
        self.optimizers = build_optimizers(task.modules, self.parameters, recipe.optimizer)
        self.ema = Ema(self.parameters, recipe.ema.decay)
        self.loss: nn.Module = _Loss(task)
        if world.kind == "ddp":
            self.loss = DistributedDataParallel(self.loss, gradient_as_bucket_view=True, broadcast_buffers=False)
        self.step, self.seconds = 0, 0.0
        self.best, self.before, self.held = math.inf, {}, {}
        shares = [part.share for part in data_parts(recipe.data)]
        self.stream = Stream(train_sets, shares, recipe.data, recipe.seed, world)
        if begun is not None:
            self._restore(begun)
        self.board = open_board(out / "board", self.step) if world.main else None
        self.curve = Curve(out / "loss.csv", self.step, self.board) if world.main else None
        self.held_curve = Curve(out / "validation.csv", self.step, self.board, "validation") if world.main else None
        self.pending: list[tuple[int, Tensor, float]] = []
        self.part_names: list[str] = []

    # ------------------------------------------------------------------------------------------------- the loop

    def go(self, stop: threading.Event) -> Result:
        recipe = self.recipe
        began, carried, stopped = time.monotonic(), self.seconds, "finished"
        progress = Progress(recipe.name, self.step, recipe.steps, recipe.data.batch_size, quiet=not self.world.main)
        with progress:
            self._greet(progress)
            if self.step == 0 and recipe.validation.every:
                self.before = self.held = self._validate(progress)
            batches = iter(self.stream)
            while self.step < recipe.steps and stopped == "finished":
                try:
                    batch = next(batches)
                except RuntimeError:  # whoever asked us to stop has ended the worker processes too
                    if not stop.is_set():
                        raise
                    stopped = "signal"
                    self._checkpoint(progress, False)
                    break
                self._train_step(*batch)
                late = recipe.minutes is not None and time.monotonic() - began > 60 * recipe.minutes
                look = self._due(recipe.log_every)
                if look:
                    self._flush(progress)
                if (look or self.world.size == 1) and any_in_world(late or stop.is_set(), self.world):
                    stopped = "time limit" if late and not stop.is_set() else "signal"
                if self.step == recipe.steps:
                    stopped = "finished"
                improved = False
                if self._due(recipe.validation.every):
                    self.held = self._validate(progress)
                    improved = self.held["loss"] < self.best
                    self.best = min(self.best, self.held["loss"])
                if self._due(recipe.samples.every):
                    self._sample(progress)
                self.seconds = carried + time.monotonic() - began
                save_best = improved and recipe.checkpoint.best
                if self._due(recipe.checkpoint.every) or save_best or stopped != "finished":
                    self._checkpoint(progress, save_best)
            export = self.export(progress) if recipe.export and stopped == "finished" else None
            self._farewell(progress, stopped)
        if self.board is not None:
            self.board.close()
        return Result(self.out, self.step, stopped, self.seconds, export, self.before, self.held)

    def only_export(self) -> Result:
        """Export what was restored."""
        stopped = "finished" if self.step >= self.recipe.steps else "export"
        with Progress(self.recipe.name, self.step, self.recipe.steps, 1, quiet=not self.world.main) as progress:
            folder = self.export(progress)
        return Result(self.out, self.step, stopped, self.seconds, folder, self.before, self.held)

    def _due(self, every: int) -> bool:
        """Whether something is to be done behind this step: every so many steps and behind the last, 0 never."""
        return every > 0 and (self.step % every == 0 or self.step == self.recipe.steps)

    def _train_step(self, batch: list[Batch], seeds: list[list[int]]) -> None:
        """One optimiser step over this process's micro-batches."""
        recipe, last = self.recipe.optimizer, len(batch) - 1
        self.task.begin(self.step)
        total: list[Tensor] = []
        for number, (part, part_seeds) in enumerate(zip(batch, seeds, strict=True)):
            with self._synchronised(number == last):
                with self._autocast():
                    loss, parts = self.loss(part, part_seeds)
                (loss / len(batch)).backward()
            self.part_names = list(parts)
            total.append(torch.stack([loss.detach(), *(value.detach() for value in parts.values())]).float())
        weights = list(self.parameters.values())
        bound = (recipe.clip_norm or math.inf) if self.step >= recipe.clip_after else math.inf
        norm = torch.nn.utils.clip_grad_norm_(weights, bound, foreach=True)
        norm = whole(norm)
        share = rate_share(self.step, self.recipe.steps, self.recipe.schedule)
        set_rate(self.optimizers, share)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.step)
        self.step += 1
        mean = total[0] if len(total) == 1 else torch.stack(total).mean(0)
        self.pending.append((self.step, torch.cat([mean, norm.detach().float().view(1)]), share * recipe.lr))

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Exchange gradients in the last micro-batch only."""
        if isinstance(self.loss, DistributedDataParallel) and not last:
            with self.loss.no_sync():
                yield
            return
        if self.world.kind in ("fsdp", "hsdp"):
            for module in self.task.modules.values():
                module.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def _autocast(self) -> Any:
        if self.recipe.precision == "bf16":
            return torch.autocast(self.world.device.type, torch.bfloat16)
        return nullcontext()

    # ------------------------------------------------------------------------------------------------- looks

    def _flush(self, progress: Progress) -> None:
        """Read the losses of the steps since the last look; the only place that waits for the device."""
        if not self.pending:
            return
        table = mean_over_world(torch.stack([values for _, values, _ in self.pending]), self.world).tolist()
        rows = []
        for (step, _, rate), values in zip(self.pending, table, strict=True):
            row = {
                "step": step,
                **dict(zip(["loss", *self.part_names, "gradient_norm"], values, strict=True)),
                "lr": rate,
            }
            if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
                if self.curve is not None:
                    self.curve.add(rows)
                raise TrainingDiverged(self._diverged(row))
            rows.append(row)
        self.pending.clear()
        if self.curve is not None:
            self.curve.add(rows)
        progress.show(self.step, {key: rows[-1][key] for key in ("loss", *self.part_names, "lr")})

    def _diverged(self, row: dict[str, float]) -> str:
        what = "loss" if not math.isfinite(row["loss"]) else "gradient_norm"
        good = find_checkpoint(self.out / "checkpoints")
        kept = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        return (
            f"step {row['step']}: the {what} is {row[what]}; training stopped, {kept}; lower optimizer.lr or "
            "optimizer.clip_norm and resume."
        )

    @torch.no_grad()
    def _validate(self, progress: Progress) -> dict[str, float]:
        """Held-out values with the averaged weights."""
        sums: dict[str, Tensor] = {}
        count = 0
        with progress.paused(), self._averaged():
            size = self.recipe.validation.batch_size
            for batch, seeds in held_out_batches(self.held_out, size, self.recipe.seed, self.world):
                with self._autocast():  # not around the data: scenes are rendered in fp32
                    values = self.task.validate(batch, seeds)
                for name, each in values.items():
                    sums[name] = sums.get(name, 0) + each.double().sum()
                count += len(seeds)
        means = mean_over_world(torch.stack(list(sums.values())) / count, self.world).tolist()
        held = dict(zip(sums, means, strict=True))
        if self.held_curve is not None:
            self.held_curve.add([{"step": self.step, **held}])
        progress.say(f"{self.recipe.name}: held out at step {self.step}: {_words(held)}")
        return held

    @torch.no_grad()
    def _sample(self, progress: Progress) -> None:
        with progress.paused(), self._averaged(), torch.random.fork_rng():
            modules = usable_modules(self.task, self.world)
            if self.world.main:
                sheet = write_samples(self.out / "samples", self.step, self.task.sample(modules))
                progress.say(f"{self.recipe.name}: samples in {sheet}")
            barrier(self.world)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights are in place and the networks in evaluation mode."""
        modules = list(self.task.modules.values())
        with self.ema.swapped_in():
            for module in modules:
                module.eval()
                forget_gathered(module)
            try:
                yield
            finally:
                for module in modules:
                    module.train()
                    forget_gathered(module)

    # ------------------------------------------------------------------------------------------------- keeping

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint stores as tensors, under one flat name each."""
        tensors = {
            f"model.{name}.{inner}": value.detach()
            for name, module in self.task.modules.items()
            for inner, value in module.state_dict().items()
            if inner not in _tied(module)
        }
        tensors |= {f"ema.{name}": value for name, value in self.ema.tensors.items()}
        return tensors | {
            f"optimizer.{name}": value for name, value in optimizer_tensors(self.optimizers, self.parameters).items()
        }

    def _checkpoint(self, progress: Progress, best: bool) -> None:
        self._flush(progress)
        state = {
            "positions": self.stream.positions,
            "data_sizes": [len(part) for part in self.stream.sets],
            "seed": self.recipe.seed,
            "seconds": self.seconds,
            "best": self.best if math.isfinite(self.best) else None,
            "before": self.before,
            "after": self.held,
            "world_size": self.world.size,
        }
        keep = self.recipe.checkpoint.keep
        root = self.out / "checkpoints"
        with progress.paused():
            write_checkpoint(root, self.step, self._tensors(), state, self.world, keep=keep, best=best)
            if self.world.main:
                draw_curves(self.out)
            if self.board is not None:
                self.board.flush()
            if self.recipe.checkpoint.export and self.step < self.recipe.steps:
                self.export(progress)

    def _restore(self, folder: Path) -> None:
        state, sizes = read_checkpoint(folder, self._tensors(), self.world), [len(part) for part in self.stream.sets]
        if state["seed"] != self.recipe.seed or state["data_sizes"] != sizes:
            raise BadRecipe(
                f"{folder}: was trained on {state['data_sizes']} clips with seed {state['seed']}, the recipe gives "
                f"{sizes} with seed {self.recipe.seed}; resume with the same, or choose another out."
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.stream.step, self.stream.positions = state["step"], state["positions"]
        self.best = math.inf if state["best"] is None else state["best"]
        self.before, self.held = state["before"], state["after"]

    def export(self, progress: Progress) -> Path:
        """Save the networks with their averaged weights."""
        with progress.paused(), self._averaged(), torch.random.fork_rng():
            folder = export_task(self.task, self.out / "export", self.world)
        progress.say(f"{self.recipe.name}: step {self.step} exported to {folder}")
        return folder

    # ------------------------------------------------------------------------------------------------- words

    def _greet(self, progress: Progress) -> None:
        numbers = ", ".join(
            f"{name} {sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
            for name, module in self.task.modules.items()
        )
        at = f" from step {self.step}" if self.step else ""
        progress.say(
            f"{self.recipe.name}: training {numbers} on {len(self.stream)} clips, "
            f"{self.recipe.steps} steps of {self.recipe.data.batch_size}{at}, into {self.out}"
        )

    def _farewell(self, progress: Progress, stopped: str) -> None:
        progress.say(f"{self.recipe.name}: {stopped} at step {self.step} after {clock(self.seconds)}")
        if self.before and self.held:
            progress.say(f"{self.recipe.name}: held out before: {_words(self.before)}; after: {_words(self.held)}")
        if stopped != "finished":
            progress.say(f"{self.recipe.name}: go on with --resume")


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _tied(module: nn.Module) -> set[str]:
    """Second names of parameters that a module holds under several, such as T5's embedding."""
    first = {name for name, _ in module.named_parameters()}
    return {name for name, _ in module.named_parameters(remove_duplicate=False)} - first
