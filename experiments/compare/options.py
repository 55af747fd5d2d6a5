"""Options of runs as flat names and values, which two runs can be compared by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from experiments.compare.runs import TestedRun

# Options that identify a run or name places: they do not change what is trained.
IGNORED = ("name", "seed_everything", "data.root", "data.cache_dir", "ckpt_path")
IGNORED_ENDINGS = (".dirpath", ".save_dir", ".default_root_dir", "].id", "].name", "].group")


def options(config: Mapping[str, object]) -> dict[str, str]:
    """Flatten a configuration, without the options that identify a run or name places.

    A class and its arguments share a prefix: ``{"model.criterion": "torch.nn.CrossEntropyLoss",
    "model.criterion.weight": "None", ...}``. In lists of classes, such as callbacks, the class of
    an item is part of the name.
    """
    return {
        name: value
        for name, value in _flat(config, "")
        if name not in IGNORED and not name.endswith(IGNORED_ENDINGS)
    }


def differing(runs: Sequence[TestedRun]) -> list[str]:
    """Names of the options in which runs differ, beyond paths to runs of their own seeds."""
    per_run = [
        {name: v.replace(f"/seed{run.seed}", "/seed") for name, v in options(run.config).items()}
        for run in runs
    ]
    names = dict.fromkeys(name for flat in per_run for name in flat)
    return [name for name in names if len({flat.get(name) for flat in per_run}) > 1]


def _flat(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and "class_path" in value:
        yield name, value["class_path"]
        value = value.get("init_args") or {}
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(child, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for item in value:
            kind = str(item.get("class_path", "")).rpartition(".")[2] if item else ""
            yield from _flat(item, f"{name}[{kind}]")
    else:
        yield name, str(value)
