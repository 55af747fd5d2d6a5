"""Tests, measurements and studies on a GPU: ``make gpu``, see docs/gpu.md."""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing_packages() -> list[str]:
    """Packages that pyproject.toml lists and that are not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"[\[<>=]", name)[0] for name in [*project["dependencies"], "pytest"]]
    return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    if missing := missing_packages():
        sys.exit(f"error: Not installed: {', '.join(missing)}. docs/gpu.md says how to bring them.")
    from tests.gpu.command import main  # imports what may be missing

    main()
