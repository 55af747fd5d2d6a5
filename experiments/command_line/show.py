"""A recipe with its family, and each option of its parts explained."""

from __future__ import annotations

import re
import sys
from argparse import Action
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from callbacks.errors import RunError
from experiments.command_line.parser import CommandParser
from experiments.recipes import layers, read

INDENT = " " * 6
UNSTATED = object()
# Arguments that are not options: the data or the module fill them in.
FILLED_IN = {"batches_per_epoch", "class_counts", "class_names", "dirpath", "labels"}
FILLED_IN |= {"descriptions", "num_classes", "shots", "size", "taxonomy", "total_steps"}
CLASS = re.compile(r"(callbacks|datamodules|lightning_modules|torch)(\.\w+)*\.[A-Z]\w*")


def main() -> None:
    parser = CommandParser(
        "Print a recipe as it is trained, then every option of its parts: flag, meaning, type and "
        "value. Options that the recipe does not state have their defaults."
    )
    parser.add_argument("recipe", help="name of a recipe, or a YAML file of your own")
    name = parser.parse_args().recipe
    try:
        print(settings(name), flush=True)
    except RunError as error:
        sys.exit(f"error: {error}")
    print(options(name))  # imports torch and Lightning, which takes seconds


def settings(name: str) -> str:
    """Header and settings of a recipe.

    Raises:
        RunError: No recipe has this name, or its file cannot be read.
    """
    body = yaml.safe_dump(read(name), sort_keys=False, default_flow_style=None, width=100)
    return "\n".join([header(layers(name)[-1]), "", body])


def options(name: str) -> str:
    """The explained options of a recipe's parts."""
    return "\n".join(dict.fromkeys(explain(*part) for part in parts(read(name))))


def header(path: Path) -> str:
    """The comment at the top of a recipe."""
    lines = path.read_text("utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def parts(record: dict[str, Any], at: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each class that a recipe chooses: its option, its import path, and the values it is given."""
    for key, value in record.items():
        option = at if key == "init_args" else f"{at}.{key.rstrip('+')}".strip(".")
        for chosen in value if isinstance(value, list) else [value]:
            if isinstance(chosen, str) and CLASS.fullmatch(chosen) and key != "class_path":
                yield option, chosen, {}
            elif isinstance(chosen, dict):
                if "class_path" in chosen:
                    yield option, chosen["class_path"], chosen.get("init_args", {})
                yield from parts(chosen, option)


def explain(option: str, path: str, values: dict[str, Any]) -> str:
    """The options of a class: flag, value in the recipe, meaning, type and default."""
    module, _, name = path.rpartition(".")
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(import_module(module), name), option, fail_untyped=False)
    lines = [f"{path} (--{option})"]
    filled_in = FILLED_IN | ({"optimizer"} if option == "model.lr_scheduler" else set())
    for action in parser._actions:
        key = action.dest.removeprefix(f"{option}.")
        if key == action.dest or key.endswith("help") or key in filled_in:
            continue
        value = values.get(key, UNSTATED)
        if isinstance(value, dict | list):  # explained as a part of its own
            value = UNSTATED
        elif path.startswith("torch.") and value is UNSTATED:  # documented by torch
            continue
        lines.append(f"  --{action.dest}{'' if value is UNSTATED else f' {value}'}")
        lines += wrap(
            f"{plain(action.help)} ({_type(action)})",
            96,
            initial_indent=INDENT,
            subsequent_indent=INDENT,
        )
    return "\n".join([*lines, ""])


def plain(text: str | None) -> str:
    """A docstring's sentence without its markup."""
    return re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"\1", text or "").replace("``", "")


def _type(action: Action) -> str:
    hint = getattr(action, "_typehint", None) or getattr(action, "type", None)
    name = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)
    name = re.sub(r"(?:typing|collections\.abc|pathlib|\w+(?:\.\w+)*)\.(?=\w)", "", name)
    default = action.default
    return name if default is None or isinstance(default, dict) else f"{name}, default: {default}"
