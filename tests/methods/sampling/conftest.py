"""Lets the tests of this folder import tiny networks and tiny pipelines from the tests of the runtime and of pipelines."""

import sys
from pathlib import Path

for folder in ("runtime", "pipelines/foreign"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))
