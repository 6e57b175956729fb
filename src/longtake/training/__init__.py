"""Training: recipes, the loop, and what is trained."""

from longtake.training.loop import Result, train
from longtake.training.recipe import Recipe, load_recipe

__all__ = ["Recipe", "Result", "load_recipe", "train"]
