"""The tree as a whole: floors, public names, file sizes, what the wheel holds, and what the README promises."""

import ast
import importlib
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "longtake"
STARTERS = SOURCE / "starters"  # data, although a pipeline folder may hold a stub of Python
MODULES = sorted(path for path in SOURCE.rglob("*.py") if STARTERS not in path.parents)
BIN = Path(sys.executable).parent

FLOORS = "A floor imports only the floors below it"
STACK = "Nothing imports what the library does without"
EXTRAS = "The core never imports an extra"
SYSTEMS = "Systems on one floor never import one another"


def run(*command, cwd=ROOT, **kwargs):
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, **kwargs)


def tracked_files():
    listing = run("git", "ls-files", "-z")
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def parse(path):
    return ast.parse(path.read_text(), filename=str(path))


def where(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


# --------------------------------------------------------------------------------------------------------- floors


def test_the_floors_hold():
    result = run(BIN / "lint-imports", "--no-logo", "--no-cache")
    assert result.returncode == 0, result.stdout


@pytest.fixture
def model_house(tmp_path):
    """A package `longtake` with one empty module on every floor, and the repository's own contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "longtake"
    floors = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    for floor in re.findall(r"\w+", " ".join(floors)):
        (package / floor).mkdir(parents=True)
        (package / floor / "__init__.py").touch()
    (package / "__init__.py").touch()

    def add(module, text):
        path = package / module
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in [path.parent, *path.parent.parents]:
            if folder.is_relative_to(package):
                (folder / "__init__.py").touch()
        path.write_text(text)

    def broken():
        result = run(BIN / "lint-imports", "--no-logo", "--no-cache", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
        return result.returncode, set(re.findall(r"^(.*) BROKEN", result.stdout, re.MULTILINE))

    return add, broken


def test_the_contracts_let_the_house_as_designed_pass(model_house):
    add, broken = model_house
    add("pipelines/loading.py", "from longtake.backbones import waver\nfrom longtake.tokenizers import causal_vae")
    add("backbones/waver.py", "from longtake.layers import attention\nimport torch")
    add("tokenizers/causal_vae.py", "from longtake.errors import BadSize")
    add("layers/attention.py", "import torch")
    add("serving/api.py", "import fastapi\nfrom longtake import pipelines")
    add("data/curation/shots.py", "import cv2")
    add("methods/caches/taylorseer.py", "from longtake.runtime import Site")
    assert broken() == (0, set())


@pytest.mark.parametrize(
    ("module", "text", "contract"),
    [
        ("video/reading.py", "import longtake.training", FLOORS),
        (
            "layers/attention.py",
            "def f():\n    from longtake.runtime import x",
            FLOORS,
        ),
        ("backbones/a.py", "import longtake.tokenizers", FLOORS),
        ("attic/a.py", "", FLOORS),
        ("data/a.py", "import torchvision.io", STACK),
        ("data/a.py", "from decord import VideoReader", STACK),
        ("pipelines/a.py", "import pickle", STACK),
        ("pipelines/a.py", "import fastapi", EXTRAS),
        ("data/windows.py", "import cv2", EXTRAS),
    ],
)
def test_the_contracts_catch(model_house, module, text, contract):
    add, broken = model_house
    add(module, text)
    assert broken() == (1, {contract})


def test_the_contracts_keep_systems_apart(model_house):
    add, broken = model_house
    add("methods/caches/one.py", "from longtake.methods.caches import two")
    add("methods/caches/two.py", "")
    assert broken() == (1, {SYSTEMS})


def test_import_longtake_is_light():
    """The front door opens without torch, and without anything that takes seconds to import."""
    heavy = "torch numpy diffusers transformers accelerate peft av omegaconf matplotlib tensorboard PIL".split()
    code = f"import sys, longtake; print([name for name in {heavy} if name in sys.modules])"
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_imports_are_declared_dependencies():
    """Nothing is imported that is there only because a dependency happens to bring it; the next release may not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for extra, names in project["optional-dependencies"].items() if extra != "dev" for name in names]
    declared = {normal(re.split(r"[\[<>=]", name)[0]) for name in [*project["dependencies"], *extras]}
    # pyarrow is asked for by name where a Parquet table is given; the other two are called otherwise when installed.
    known = declared | {"longtake", "pyarrow", "cv2", "scenedetect"}
    distributions = metadata.packages_distributions()
    stray = {}
    for path in MODULES:
        for node in ast.walk(parse(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                if not known & {normal(found) for found in distributions.get(name, [name])}:
                    stray[name] = where(path, node)
    assert not stray


def normal(name):
    """PEP 503: one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_pickle_is_loaded():
    """torch.load says weights_only=True, np.load never allows pickles."""
    offences = []
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Call):
                continue
            name, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name.endswith("torch.load") and options.get("weights_only") != "True":
                offences.append(where(path, node))
            if options.get("allow_pickle", "False") != "False":
                offences.append(where(path, node))
    assert not offences


# --------------------------------------------------------------------------------------------------- rooms and names


def test_no_file_has_become_two_rooms():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: count for path, count in lines.items() if count > 420}


def test_every_room_has_a_name_of_its_own():
    vague = {"util", "utils", "helper", "helpers", "common", "misc", "tools"}
    assert not [str(path) for path in MODULES if vague & {path.stem, path.parent.name}]


def public_definitions(tree):
    """Public functions and classes of a module, and the public functions of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node, False
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                        yield f"{node.name}.{member.name}", member, True


def test_public_names_say_what_they_are():
    missing = []
    for path in MODULES:
        tree = parse(path)
        if not ast.get_docstring(tree):
            missing.append(f"{path.relative_to(ROOT)}: the module")
        for name, node, is_method in public_definitions(tree):
            if not is_method and not ast.get_docstring(node):
                missing.append(f"{where(path, node)}: {name}")
    assert not missing, "without a docstring:\n" + "\n".join(missing)


def test_public_functions_take_named_arguments():
    """No **kwargs: a misspelt argument is an error where it is written."""
    offences = [
        f"{where(path, node)}: {name}"
        for path in MODULES
        for name, node, _ in public_definitions(parse(path))
        if isinstance(node, ast.FunctionDef) and node.args.kwarg
    ]
    assert not offences, "\n".join(offences)


def packages():
    return [".".join(path.parent.relative_to(ROOT / "src").parts) for path in sorted(SOURCE.rglob("__init__.py"))]


def test_every_folder_with_code_is_a_package():
    """A folder without __init__.py is seen neither by the import contracts nor by the test of exports below."""
    assert not {str(path.parent) for path in MODULES if not (path.parent / "__init__.py").exists()}


@pytest.mark.parametrize("package", packages())
def test_what_a_package_exports_is_there_and_documented(package):
    """Names put in `__all__`, including the lazy ones, and each class and function among them with a docstring."""
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"


def test_tests_mirror_the_source():
    """tests/<floor>/.../test_<name>.py tests src/longtake/<floor>/...; a folder that tests nothing has moved."""
    elsewhere = {ROOT / "tests", ROOT / "tests" / "benchmarks"}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.parent not in elsewhere:
            assert (SOURCE / path.parent.relative_to(ROOT / "tests")).is_dir(), path.relative_to(ROOT)


# ------------------------------------------------------------------------------------------------------- the checkout


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    from longtake.training.recipe import load_recipe

    stages = load_recipe(path)
    assert stages
    assert all(stage.steps > 0 for stage in stages)


def test_no_machine_path_in_the_tree():
    """Nothing committed names a folder of the machine that it was made on, nor its user's home."""
    pattern = re.compile(r"(?<![\w.>])/(?:work|farm|root|home/\w+|Users/\w+|tmp/bash_jobs)/")
    found = []
    for path in tracked_files():
        if path == Path(__file__) or path.suffix in {".safetensors", ".png", ".mp4", ".webp", ".gif"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_the_wheel_holds_everything_in_the_package():
    """Weights, configurations, tokenizer files and py.typed are installed with the code, byte for byte by name."""
    from hatchling.builders.wheel import WheelBuilder

    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    present = {
        str(path.relative_to(ROOT / "src"))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"longtake/__init__.py", "longtake/py.typed"} <= shipped
    assert present - shipped == set()
    assert {name.split("/")[0] for name in shipped} == {"longtake"}


def test_a_starter_stays_small():
    """At most 32 MiB each, so that installing the package stays a matter of seconds."""
    for index in STARTERS.glob("*/model_index.json"):
        size = sum(path.stat().st_size for path in index.parent.rglob("*") if path.is_file())
        assert size <= 32 * 2**20, f"{index.parent.name}: {size / 2**20:.1f} MiB"


@pytest.mark.parametrize(
    ("folder", "keys"),
    [
        ("benchmarks", {"name", "results", "setting", "machine", "versions", "date"}),
        ("claims", {"name", "statement", "verdict", "thresholds", "seeds", "machine", "versions"}),
    ],
)
def test_results_are_complete_records(folder, keys):
    """A committed result says what, on which machine, with which versions, and comes from a script that is there."""
    for path in (ROOT / folder / "results").glob("*.json"):
        record = json.loads(path.read_text())
        assert keys <= record.keys(), path.name
        assert record.get("verdict", "holds") in {"holds", "does not hold", "inconclusive"}
        assert (ROOT / folder / f"{record['name']}.py").exists()


def test_every_claim_is_listed():
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "claims" / "README.md").read_text(), re.MULTILINE))
    assert listed - {"holds", "inconclusive"} == {path.stem for path in (ROOT / "claims").glob("*.py")}


def test_every_benchmark_is_listed():
    listed = set(re.findall(r"^\| `(\w+)\.py` \|", (ROOT / "benchmarks" / "README.md").read_text(), re.MULTILINE))
    assert listed == {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"timing"}


# --------------------------------------------------------------------------------------------------------- the Makefile


FAKE_PYTHON = """#!/bin/sh
# Logs what it is asked to do instead of doing it. FAKE_STATUS: what the checks of its version and venv exit with.
case "$*" in
  *version_info*|*ensurepip*) exit ${FAKE_STATUS:-0};;
  "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/longtake"; echo venv >> log;;
  *"pip install"*) echo "pip $*" >> log; test ! -e offline;;
  *) echo "$(basename "$0") $*" >> log;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile, and `make` with the stand-in above for Python: (result, lines of its log)."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)

    def make(*arguments, **env):
        log.write_text("")
        result = run("make", f"PYTHON={fake}", *arguments, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **env})
        return result, log.read_text().splitlines()

    return tmp_path, make


def test_make_demo_installs_once_and_runs_the_readme_prompt(checkout):
    folder, make = checkout
    result, first = make("demo", "PIP_ARGS=--index-url local")
    assert result.returncode == 0, result.stderr
    assert first[0] == "venv"
    assert "--index-url local --editable ." in first[1]
    assert first[2].startswith("longtake generate a red ball rolls behind a blue cube --out demo.mp4")
    printed = {line.split()[-1] for line in result.stdout.splitlines()}
    assert {str(folder / name) for name in ("demo.mp4", "demo.json", "demo.png")} <= printed
    _, second = make("demo")
    assert not [line for line in second if "pip" in line or "venv" in line]
    assert second == first[2:]


def test_make_test_adds_the_development_tools_and_runs_the_whole_suite(checkout):
    folder, make = checkout
    make("demo")
    _, lines = make("test")
    assert lines[0].endswith("--editable .[dev]")
    assert lines[1:] == ["python -m pytest"]
    (folder / "pyproject.toml").touch()
    _, again = make("test")
    assert [line.split()[-1] for line in again] == [".", ".[dev]", "pytest"]


def test_make_takes_an_interrupted_installation_up_again(checkout):
    folder, make = checkout
    (folder / "offline").touch()
    failed, lines = make("demo")
    assert failed.returncode != 0
    assert not [line for line in lines if line.startswith("longtake")]
    (folder / "offline").unlink()
    result, lines = make("demo")
    assert result.returncode == 0
    assert any("pip install" in line for line in lines)


def test_make_says_what_is_wrong_with_python(checkout):
    folder, make = checkout
    result, lines = make("demo", FAKE_STATUS="1")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert "make demo PYTHON=python3.11" in result.stderr
    assert not lines
    assert not (folder / ".venv").exists()


# ----------------------------------------------------------------------------------------------------------- the README


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language, page):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(program, page):
    joined = "\n".join(blocks("bash", page)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [line for line in lines if line and Path(line[0]).name == program]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_make_targets_that_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line[1] for line in commands("make", page)}
    assert named <= targets
    assert page.name != "README.md" or {"demo", "test"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_commands_and_options_that_exist(page):
    import typer

    from longtake.cli import app

    group = typer.main.get_command(app)
    lines = commands("longtake", page)
    assert lines or page.name != "README.md"
    for line in lines:
        command, words = group, line[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        assert command is not group or words[0].isupper(), f"no such verb: {line}"
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known | {"--help"}, f"{word} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)], ids=lambda page: page.stem)
def test_python_in_pages_runs(page, tmp_path, monkeypatch):
    """The page's Python as printed, one block after another, but for the number of sampling steps."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python", page):
        exec(compile(re.sub(r"steps=\d+", "steps=2", block), f"<{page.name}, python>", "exec"), names)
    assert page.name != "README.md" or list(tmp_path.glob("*.mp4"))
