"""Lets the tests of this folder import `tiny_networks`, from the tests of the runtime, and one another."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parent)]
