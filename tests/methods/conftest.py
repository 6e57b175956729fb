"""Lets the tests of this folder import `tiny_networks`, from the tests of the runtime."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
