"""Train a token routing backbone (arXiv 2308.03409) to name what images show, within a budget of multiply-accumulates.

    loss = cross-entropy with smoothed labels + weight * max(0, E[share of multiply-accumulates] - budget)^2

The budget is 1 for the first tenth of the steps, falls in a straight line until half of them, and stays (`budget_at`);
gates that are asked to save from the beginning close for good. Gates are drawn from each sample's seed.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longtake.errors import BadInput, BadRecipe, UnknownName
from longtake.layers.gates import budget_at
from longtake.recognition.token_routing import (
    TokenRoutingBackbone,
    budget_loss,
    draw_depth,
    routing_config,
)
from longtake.recognition.token_routing.network import SMALLEST
from longtake.training.models import model_folder
from longtake.training.network_recipes import ClassifierRecipe
from longtake.training.parallel import World
from longtake.training.recipe import Recipe, check_arguments
from longtake.training.sources import Sets, image_classes, image_data, sample_fps
from longtake.training.tasks import Batch
from longtake.video import Clip


class ClassifierTask:
    """See `longtake.training.tasks.Task`. Batches hold ``pixels`` (B, 3, 1, H, W) in [-1, 1] and ``label``, B numbers."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.names = self.class_names()
        if min(recipe.data.height, recipe.data.width) < SMALLEST:
            raise BadRecipe(
                f"data: images of {recipe.data.height}x{recipe.data.width}; use at least {SMALLEST} a side."
            )
        if not 0 < recipe.classifier.budget <= 1:
            raise BadRecipe(f"classifier.budget: {recipe.classifier.budget}; use a share of the cost, above 0 to 1.")
        self.network = build_classifier(recipe.classifier, self.names).to(world.device)
        self.modules: dict[str, nn.Module] = {"classifier": self.network}
        self.step = 0
        self.sets: Sets | None = None

    def class_names(self) -> tuple[str, ...]:
        """Of the recipe's data."""
        return image_classes(self.recipe.data)

    def data(self) -> Sets:
        if self.sets is None:
            self.sets = image_data(self.recipe.data, self.recipe.seed, self.world)
        return self.sets

    def begin(self, step: int) -> None:
        self.step = step

    def loss(self, batch: Batch, seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        asked = self.recipe.classifier
        found = self.network(images_of(batch), generator=[torch.Generator().manual_seed(seed) for seed in seeds])
        named = cross_entropy(found.logits.float(), self.labels(batch), label_smoothing=asked.label_smoothing)
        budget = budget_at(
            self.step / self.recipe.steps, asked.budget, asked.budget_hold, asked.budget_reached - asked.budget_hold
        )
        over = budget_loss(found.share, budget)
        parts = {"classes": named.detach(), "share": found.share.mean().detach(), "budget": named.new_tensor(budget)}
        return named + asked.budget_weight * over, parts

    def validate(self, batch: Batch, seeds: list[int]) -> dict[str, Tensor]:
        found, labels = self.network(images_of(batch)), self.labels(batch)
        each = cross_entropy(found.logits.float(), labels, reduction="none")
        return {"loss": each, "accuracy": (found.logits.argmax(1) == labels).float(), "share": found.share}

    def sample(self, modules: dict[str, nn.Module]) -> list[tuple[str, Clip]]:
        """Held-out images: on the left the image, on the right how much of the network each place of it got."""
        network: Any = modules["classifier"]
        _, held_out = self.data()
        clips: list[tuple[str, Clip]] = []
        for index in range(min(self.recipe.samples.count, len(held_out))):
            item = held_out[index]
            images = item["pixels"][None, :, 0].to(self.world.device)
            found = network(images)
            drawn = draw_depth(images, found).cpu()[:, :, None]
            named = self.names[int(found.logits.argmax())]
            clips.append((f"{named} ({self.names[item['label']]})", Clip(drawn, sample_fps(item))))
        return clips

    def export(self, folder: Path, modules: dict[str, nn.Module]) -> None:
        network: Any = modules["classifier"]
        network.save_pretrained(folder)

    def labels(self, batch: Batch) -> Tensor:
        """Numbers of the classes, (B,)."""
        return torch.as_tensor(batch["label"], device=self.world.device)


def images_of(batch: Batch) -> Tensor:
    """(B, 3, 1, H, W) -> (B, 3, H, W)."""
    return batch["pixels"][:, :, 0]


def build_classifier(recipe: ClassifierRecipe, names: tuple[str, ...]) -> TokenRoutingBackbone:
    """A backbone with a head for the named classes: new, or a trained one; where its classes are others, with a new head.

    Raises:
        BadRecipe: a configuration that no backbone has. UnknownModel: no folder to start from.
    """
    if recipe.init_from is not None:
        if recipe.config:
            raise BadRecipe("classifier: init_from brings its own configuration; leave out classifier.config.")
        folder = model_folder(recipe.init_from)
        try:
            trained = TokenRoutingBackbone.from_pretrained(str(folder), low_cpu_mem_usage=False).float()
        except (OSError, ValueError, RuntimeError) as error:
            raise BadRecipe(
                f"classifier.init_from: {folder} holds no TokenRoutingBackbone that loads ({error})."
            ) from error
        return trained if tuple(trained.config.classes) == names else _with_head(trained, names)
    given = dict(recipe.config)
    check_arguments(TokenRoutingBackbone.__init__, {k: v for k, v in given.items() if k != "size"}, "classifier.config")
    if "classes" in given:
        raise BadRecipe("classifier.config.classes: the data brings them; leave it out.")
    size = given.pop("size", None)
    try:
        return TokenRoutingBackbone(**{**({} if size is None else routing_config(size)), **given, "classes": names})
    except (BadInput, UnknownName) as error:
        raise BadRecipe(f"classifier.config: {error}") from error


def _with_head(trained: TokenRoutingBackbone, names: tuple[str, ...]) -> TokenRoutingBackbone:
    """A copy with a new head."""
    config = {name: value for name, value in trained.config.items() if not name.startswith("_")}
    made = TokenRoutingBackbone(**{**config, "classes": names})
    weights = {name: weight for name, weight in trained.state_dict().items() if not name.startswith("head.")}
    made.load_state_dict(weights, strict=False)
    return made
