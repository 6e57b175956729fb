"""A small comparison that several tests look at."""

import pytest

from longtake.comparison import compare

SMALL = {"frames": 5, "height": 16, "width": 24, "steps": 6}
PROMPTS = ("a red ball rolls", "a blue <cube> spins")
STACKS = ("taylorseer:interval=2", "attention-maps", "cfg-interval:low=0.5+taylorseer:interval=3")


@pytest.fixture(scope="session")
def compared(tiny_folder, tmp_path_factory):
    """(report, folder) of three stacks on two prompts with two seeds each; do not write to it."""
    folder = tmp_path_factory.mktemp("comparisons") / "report"
    return compare(
        tiny_folder, STACKS, prompts=PROMPTS, seeds=2, seed=3, out=folder, command="longtake c", **SMALL
    ), folder
