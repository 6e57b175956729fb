"""Lets the tests of this folder import `tiny_networks`, which those of the methods use too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
