"""A run's options as flat names and values, so that two runs can be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.compare.runs import Run

# What only says which run it is, and where.
IDENTITY = ("name", "seed_everything", ".dirpath", ".save_dir", "].id", ".default_root_dir")


def options(config: Any) -> dict[str, str]:
    """``{"model.criterion": "CrossEntropyLoss", "model.criterion.weight": "None", ...}``.

    Classes and their arguments stand at the name of what they are; of lists of classes, such as
    callbacks, an item's class is part of the name.
    """
    return dict(_flat(config, ""))


def differing(runs: Sequence[Run]) -> list[str]:
    """Options in which runs differ, apart from their seed and their place."""
    each = [options(run.config) for run in runs]
    names = dict.fromkeys(name for one in each for name in one)
    return [
        name
        for name in names
        if not name.endswith(IDENTITY) and len({one.get(name) for one in each}) > 1
    ]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and "class_path" in value:
        yield name, value["class_path"]
        value = value.get("init_args") or {}
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for one in value:
            item = str(one.get("class_path", "")).rpartition(".")[2] if one else ""
            yield from _flat(one, f"{name}[{item}]")
    else:
        yield name, str(value)
