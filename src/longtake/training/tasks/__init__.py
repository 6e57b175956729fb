"""What is trained: each task brings its networks, its loss, and what to show and save."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from longtake.training.parallel import World
from longtake.training.recipe import Recipe
from longtake.video import Clip

Batch = dict[str, Any]  # collated items: tensors (B, ...), lists of strings


class Task(Protocol):
    """What the loop asks of a training.

    ``modules`` maps names to the networks that are trained, all in fp32 on ``device``; the loop may shard them in
    place. All randomness of a sample comes from its seed, so that neither the number of processes nor that of
    micro-batches changes what is computed.
    """

    modules: dict[str, nn.Module]

    def data(self) -> tuple[list[Dataset[Any]], Dataset[Any]]:
        """Return the training sets, one for each part of the recipe's data, and the held-out set."""
        ...

    def begin(self, step: int) -> None:
        """Be told how many steps are completed, before each one; for what changes in the course of a training."""
        ...

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of a batch (a scalar) and its named parts (detached scalars)."""
        ...

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        """Return named values of each sample (B,), ``loss`` among them: what "best" goes by, lower is better."""
        ...

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        """Return clips to look at, with captions, made by the given networks (of ``modules``' names)."""
        ...

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        """Save the given networks for use."""
        ...


def build_task(recipe: Recipe, world: World) -> Task:
    """Return the task that a recipe names."""
    if recipe.task == "tokenizer" and recipe.tokenizer.kind == "vqgan":
        from longtake.training.tasks.vqgan import VqganTask

        return VqganTask(recipe, world)
    if recipe.task == "tokenizer":
        from longtake.training.tasks.tokenizer import TokenizerTask

        return TokenizerTask(recipe, world)
    if recipe.task == "gpt":
        from longtake.training.tasks.gpt import GptTask

        return GptTask(recipe, world)
    if recipe.task == "classifier":
        from longtake.training.tasks.classifier import ClassifierTask

        return ClassifierTask(recipe, world)
    from longtake.training.tasks.generator import GeneratorTask

    return GeneratorTask(recipe, world)


def seeded_noise(shape: tuple[int, ...], seeds: list[int], device: torch.device) -> Tensor:
    """Standard normal noise (len(seeds), *shape), each sample from a generator of its own on the CPU."""
    generator = torch.Generator()
    noise = torch.empty(len(seeds), *shape)
    for row, seed in zip(noise, seeds, strict=True):
        torch.randn(shape, generator=generator.manual_seed(seed), out=row)
    return noise.to(device, non_blocking=True)
