"""Training: recipes, the loop, and what is trained."""

from longtake.training.launch import run, train
from longtake.training.loop import Result
from longtake.training.recipe import Recipe, load_recipe

__all__ = ["Recipe", "Result", "load_recipe", "run", "train"]
