"""A training of half a second: a small network learns to undo noise on vectors. Also a program, for tests that kill it.

python toy.py OUT STEPS [key=value ...]      key: any of the recipe's, and resume, dropout, slow
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from longtake.training.launch import run
from longtake.training.loop import Result
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, resolve
from longtake.training.tasks import seeded_noise
from longtake.video import Clip

BASE: dict[str, Any] = {
    "steps": 12,
    "precision": "fp32",
    "export": False,
    "log_every": 1,
    "data": {"batch_size": 8, "workers": 0},
    "optimizer": {"lr": 3e-3},
    "schedule": {"warmup": 3},
    "checkpoint": {"every": 4},
    "validation": {"every": 0},
    "samples": {"every": 0},
}


class Vectors(Dataset[dict[str, Any]]):
    """40 fixed vectors that take ``delay`` seconds to read."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        time.sleep(self.delay)
        epoch, index = key if isinstance(key, tuple) else (0, key)
        return {"x": self.rows[index] + 0.01 * epoch, "name": f"row {index}"}


class Net(nn.Module):
    """Two residual blocks between an input and an output layer."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.arguments = {"dropout": dropout}
        self.enter = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(2))
        self.drop = nn.Dropout(dropout)
        self.leave = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + self.drop(block(x))
        return self.leave(x)


class Toy:
    """The task: predict a vector from its noisy copy."""

    def __init__(self, recipe: Recipe, world: World, dropout: float = 0.0, delay: float = 0.0) -> None:
        self.net = Net(dropout)
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.world, self.delay = world, delay
        self.poison_at: int | None = None  # call number whose loss is not finite
        self.calls = 0
        self.begun: list[int] = []

    def data(self) -> tuple[Any, Any]:
        held_out = Vectors()
        held_out.rows = held_out.rows[:6] + 1
        return [Vectors(self.delay)], held_out

    def begin(self, step: int) -> None:
        self.begun.append(step)

    def loss(self, batch: dict[str, Any], seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        error = (self.net(batch["x"] + seeded_noise((8,), seeds, self.world.device)) - batch["x"]).square().mean()
        if self.calls == self.poison_at:
            error = error * float("nan")
        return error, {"root": error.detach().sqrt()}

    def validate(self, batch: dict[str, Any], seeds: list[int]) -> dict[str, Tensor]:
        assert not self.net.training
        return {"loss": (self.net(batch["x"]) - batch["x"]).square().mean(1)}

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        return [("grey", Clip(torch.zeros(1, 3, 5, 16, 16), 8.0))]

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        save_file(modules["net"].state_dict(), folder / "net.safetensors")


def toy_recipe(out: Path | str, changes: dict[str, Any] | None = None) -> Recipe:
    """The recipe of the toy with changes laid over it."""
    return resolve(BASE, {"out": str(out), **(changes or {})})[0]


def train_toy(
    out: Path | str,
    changes: dict[str, Any] | None = None,
    *,
    resume: bool = False,
    export_only: bool = False,
    dropout: float = 0.0,
    delay: float = 0.0,
    poison_at: int | None = None,
) -> tuple[Result, Any]:
    """Run the toy training and return its result and its task (None if it was not needed)."""
    made: list[Toy] = []

    def build(recipe: Recipe, world: World) -> Toy:
        made.append(Toy(recipe, world, dropout, delay))
        made[0].poison_at = poison_at
        return made[0]

    return run(toy_recipe(out, changes), resume=resume, export_only=export_only, task=build), (made or [None])[0]


def main() -> None:
    """Train in a process of its own; in a world of many, once for each kind of parallelism that is asked for."""
    from omegaconf import OmegaConf

    torch.set_num_threads(1)
    out, *words = sys.argv[1:]
    changes: Any = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    options = {name: changes.pop(name) for name in ("resume", "dropout", "delay") if name in changes}
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
        for kind in ("ddp", "fsdp"):
            train_toy(f"{out}/{kind}", {**changes, "parallel": {"kind": kind}}, **options)
        torch.distributed.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # for the reason in tasks/test_sharded.py
    else:
        train_toy(out, changes, **options)


if __name__ == "__main__":
    main()
