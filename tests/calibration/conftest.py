"""Lets the tests of this folder import `tiny_pipelines`, from the tests of diffusers' pipelines."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines" / "foreign"))
