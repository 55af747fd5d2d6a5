"""A run's options as flat names and values, so that two runs can be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.compare.runs import Run

# What only says which run it is, and where.
SHORT = ("name", "seed_everything", "data.root", "ckpt_path")
IDENTITY = (".dirpath", ".save_dir", ".default_root_dir", "].id", "].name", "].group")


def options(config: Any) -> dict[str, str]:
    """``{"model.criterion": "torch.nn.CrossEntropyLoss", "model.criterion.weight": "None", ...}``.

    Classes and their arguments stand at the name of what they are; of lists of classes, such as
    callbacks, an item's class is part of the name. What only tells a run from its other seeds, and
    where it lies, is left out.
    """
    flat = _flat(config, "")
    return {k: v for k, v in flat if k not in SHORT and not k.endswith(IDENTITY)}


def differing(runs: Sequence[Run]) -> list[str]:
    """Options in which runs differ, if not by starting from the runs of their own seeds."""
    each = [
        {name: v.replace(f"/seed{run.seed}", "/seed") for name, v in options(run.config).items()}
        for run in runs
    ]
    names = dict.fromkeys(name for one in each for name in one)
    return [name for name in names if len({one.get(name) for one in each}) > 1]


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
