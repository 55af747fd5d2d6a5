import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "datamodules": set(),
    "lightning_modules": set(),
    "callbacks": set(),
    "experiments": {"datamodules", "lightning_modules", "callbacks"},
}
# Parts are plain torch, so that they can be copied into any project.
PARTS = [f"lightning_modules/{part}" for part in ("codecs", "losses", "mixes", "networks")]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        packages = set(imported(path)) & MAY_IMPORT.keys()
        assert packages <= MAY_IMPORT[package] | {package}, path


@pytest.mark.parametrize("folder", PARTS)
def test_parts_do_not_need_lightning(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert "pytorch_lightning" not in imported(path), path
