"""The index of callbacks, and which wing may import which."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import callbacks
from experiments.recipes import BASE

FOLDER = Path(callbacks.__file__).parent
LINES = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| `")]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in LINES]
RULES = {"ArgMax", "LogitAdjustment", "MinimumCost", "Sensitivity"}
SETS = {"ClassConditional", "Marginal", "PrevalenceAdjusted"}
# Files beside the wings are shared; the bases among them know the W&B logger.
MAY_IMPORT = {
    "": {"recording"},
    "recording": set(),
    "looking": {"recording"},
    "safety": {"recording"},
    "stages": {"safety"},
}


def imports(path: Path) -> Iterator[Path]:
    """Files of this package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("callbacks."):
            module = FOLDER.parent / node.module.replace(".", "/")
            modules = [module, *(module / name.name for name in node.names)]
            yield from (m.with_suffix(".py") for m in modules if m.with_suffix(".py").exists())


def wing(path: Path) -> str:
    return path.relative_to(FOLDER).parent.as_posix().removeprefix(".")


def test_the_index_names_every_class_and_its_file():
    files = {name: f"`{home.replace('.', '/')}.py`" for name, home in callbacks.HOMES.items()}
    named = {name.strip("`"): file for name, file, *_ in ROWS}
    assert named == {name: file for name, file in files.items() if name not in RULES | SETS}


def test_what_a_class_logs_and_writes_is_in_its_docstring():
    for name, _, _, outputs, _ in ROWS:
        documentation = " ".join(getattr(callbacks, name.strip("`")).__doc__.split())
        for output in re.findall(r"`([^`]+)`", outputs):
            assert output in documentation, (name, output)


def test_the_index_marks_the_callbacks_of_every_recipe():
    trainer = yaml.safe_load(BASE.read_text())["trainer"]
    listed = [*trainer["callbacks"], *trainer["logger"], *trainer["plugins"]]
    paths = [item["class_path"] if isinstance(item, dict) else item for item in listed]
    ours = {path.removeprefix("callbacks.") for path in paths if path.startswith("callbacks.")}
    assert {row[0].strip("`") for row in ROWS if row[4] == "`base.yaml`"} == ours - {"History"}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_wings_import_one_way(name):
    for path in FOLDER.joinpath(name).glob("*.py"):
        others = {wing(imported) for imported in imports(path)} - {name, ""}
        assert others <= MAY_IMPORT[name], path


def test_no_file_imports_itself_by_way_of_others():
    graph = {path: set(imports(path)) for path in FOLDER.rglob("*.py")}
    assert list(TopologicalSorter(graph).static_order())
