"""Recipes: a YAML file for each experiment, on a shelf for each family."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from callbacks.errors import RunError, reason
from callbacks.run_folder import SAFE_LOADER

FOLDER = Path(__file__).parent
BASE = FOLDER / "base.yaml"  # shared by every run
FAMILY = "family.yaml"  # shared by the recipes of its folder


def recipes() -> dict[str, Path]:
    """Every recipe by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*/*.yaml")) if path.name != FAMILY}


def find(name: str) -> Path:
    """The file of a recipe.

    Raises:
        RunError: No recipe has this name; the nearest names are listed.
    """
    known = recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known) or sorted(known)
        raise RunError(f"There is no recipe {name!r}: choose from {', '.join(near)}.")
    return known[name]


def layers(config: str) -> list[Path]:
    """The files that ``--config`` stands for: a recipe's family first, then the recipe.

    Args:
        config: A file, the name of a recipe, or where a recipe was before it had a family.
    """
    path = Path(config)
    if not path.exists():
        if path.suffix == ".yaml" and path.stem not in recipes():
            return [path]  # the parser names a missing file
        path = find(path.stem)
    family = path.with_name(FAMILY)
    shared = path.resolve().is_relative_to(FOLDER) and path.name != FAMILY and family.exists()
    return [family, path] if shared else [path]


def read(config: str) -> dict[str, Any]:
    """The settings of a recipe with those of its family, as they stand in the files."""
    settings: dict[str, Any] = {}
    for layer in layers(config):
        settings = _merged(settings, read_settings(layer))
    return settings


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the file of a recipe or a study.

    Raises:
        RunError: The file cannot be read or holds something else.
    """
    try:
        settings = yaml.load(path.read_text("utf-8"), Loader=SAFE_LOADER)
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        where = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or reason(error)
        line = f", line {where.line + 1}" if where else ""
        raise RunError(f"{path}{line} cannot be read as YAML: {what}.") from None
    if not isinstance(settings, dict):
        raise RunError(f"{path} holds no settings: write at least one line `option: value`.")
    return settings


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    inner = {
        key: _merged(under[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(under.get(key), dict)
    }
    return under | over | inner


def layered(arguments: Sequence[str]) -> Iterator[str]:
    """Arguments of a command line in which each ``--config`` names all of its layers."""
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag != "--config" or not (value := value if equals else next(rest, "")):
            yield argument
            continue
        for layer in layers(value):
            if layer.is_file():
                read_settings(layer)  # whose message names the file, which the parser's does not
            yield f"--config={layer}"
