"""`import longtake` gives the whole library by name and loads none of it; the catalogue tells the truth."""

import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import longtake
from longtake.errors import UnknownName

ROOT = Path(__file__).parents[1]


def test_the_front_door_is_light():
    code = "import sys, longtake; longtake.systems(); print([n for n in ('torch', 'diffusers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_command_line_is_light():
    code = "import sys, longtake.cli; print([n for n in ('torch', 'diffusers', 'numpy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_name_opens_what_it_says():
    for name in longtake.__all__:
        assert getattr(longtake, name) is not None
    assert longtake.VideoPipeline.__module__ == "longtake.pipelines.video_pipeline"
    assert longtake.CausalVAE.__name__ == "CausalVAE" and longtake.HybridStreamDiT.__name__ == "HybridStreamDiT"
    assert all(map(callable, (longtake.load, longtake.generate, longtake.apply, longtake.compare)))


def test_what_is_not_there_is_not_pretended():
    with pytest.raises(AttributeError, match="nonsense"):
        longtake.nonsense  # noqa: B018


def test_the_version_is_that_of_the_package():
    assert longtake.__version__ == version("longtake")


# ----------------------------------------------------------------------------------------------------------- catalogue


def test_the_catalogue_has_one_row_for_each_system():
    rows = longtake.systems()
    assert len(rows) == 52 and len({row.name for row in rows}) == 52
    for row in rows:
        assert row.summary and row.title and row.papers
        for paper in row.papers.split():
            year_month, _, number = paper.partition(".")
            assert len(year_month) == 4 and 1 <= int(year_month[2:]) <= 12 and len(number) == 5


def test_every_method_is_in_the_catalogue_where_it_is():
    """By its name on the command line, and by its module."""
    from longtake.methods import METHODS

    rows = {row.name: row.module for row in longtake.systems(beside=True)}
    assert len(rows) == len(longtake.systems(beside=True))
    for name, where in METHODS.items():
        assert rows[name] == f"longtake.methods.{where.partition(':')[0]}"


def test_pages_of_the_catalogue_are_those_that_there_are():
    """A page's row names it (page="docs/systems/NAME.md"), and what a row names is there."""
    there = {f"docs/systems/{path.name}" for path in (ROOT / "docs" / "systems").glob("*.md")}
    assert {row.page for row in longtake.systems(beside=True)} - {None} == there - {"docs/systems/matrix.md"}


def test_every_floor_of_the_catalogue_is_a_floor_of_the_house():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = " ".join(contracts[0]["layers"])
    assert all(row.floor.partition("/")[0] in floors for row in longtake.systems())


def test_a_module_that_is_named_exists_and_a_claim_that_is_named_too():
    for row in longtake.systems():
        if row.module is not None:
            importlib.import_module(row.module)
        if row.claim is not None:
            assert (ROOT / "claims" / f"{row.claim}.py").is_file()
        assert row.module or not (row.claim or row.missing)


def test_a_system_whose_module_exists_names_it():
    """A module of the name of a system on its floor, but not in its row, would be a row that was forgotten."""
    for row in longtake.systems():
        path = ROOT / "src" / "longtake" / row.floor / f"{row.name.replace('-', '_')}.py"
        assert not path.exists() or row.module is not None, row.name


def test_status_follows_from_the_facts():
    from longtake.catalogue import System

    assert System("a", "A", "longvideo", "2401.00001", "x").status == "planned"
    assert System("a", "A", "longvideo", "2401.00001", "x", module="m").status == "partial"
    assert System("a", "A", "longvideo", "2401.00001", "x", module="m", claim="a", missing="page").status == "partial"
    assert System("a", "A", "longvideo", "2401.00001", "x", module="m", claim="a").status == "complete"


def test_one_system_by_name():
    assert longtake.systems("waver")[0].module == "longtake.backbones.waver"
    with pytest.raises(UnknownName, match=r"'wavr'.*'waver'"):
        longtake.systems("wavr")
