"""A W&B project as a source of runs: as far as the server knows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd
import wandb

from callbacks.errors import RunError
from experiments.compare.runs import Run, one_each

NEEDED = "test/balanced_accuracy"
DRAWN = "demo"  # folder of the drawn lesions; nothing else on the server tells of them


def read_project(project: str) -> tuple[list[Run], list[str]]:
    """The tested runs of a project, and a sentence for each run that cannot be compared.

    The server has no predictions, so these runs have the metrics that they recorded, and no
    interval over lesions. Their split is known by its options.

    Args:
        project: ``entity/name``.

    Raises:
        RunError: The server does not answer, or has no such project or no tested run.
    """
    runs, left_out = [], []
    try:
        for remote in wandb.Api(timeout=30).runs(project):
            where = f"{project}/{remote.id}"
            try:
                runs.append(_run(where, remote))
            except KeyError as error:
                missing = error.args[0]
                left_out.append(f"{where} has no {missing}: evaluate it, and `make sync`.")
    except (wandb.Error, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"W&B gives no runs of {project} ({reason}): see `wandb login`.") from None
    if not runs:
        said = " ".join(left_out)
        raise RunError(f"There is no tested run in {project}: `make sync` sends yours. {said}")
    return one_each(runs), left_out


def _run(source: str, remote: Any) -> Run:
    summary, config = remote.summary_metrics, dict(remote.config)
    if NEEDED not in summary:
        raise KeyError(NEEDED)
    metrics = {
        key.removeprefix("test/"): float(value)
        for key, value in summary.items()
        if key.startswith("test/") and _is_number(value)
    }
    return Run(
        name=str(config["name"]),
        seed=int(config["seed_everything"]),
        source=source,
        classes=tuple(k.removeprefix("recall_") for k in metrics if k.startswith("recall_")),
        split=json.dumps([config["data"]["split"], config["data"]["task"]], sort_keys=True),
        synthetic=PurePath(config["data"]["root"]).name == DRAWN,
        parameters=None,
        metrics=metrics,
        predictions=None,
        history=_history(remote),
        config=config,
    )


def _history(remote: Any) -> pd.DataFrame:
    """As a run's own file is read; a step that was trained twice has its later values."""
    rows = pd.DataFrame(_scalars(record) for record in remote.scan_history())
    if not {"trainer/global_step", "epoch"} <= set(rows):
        return pd.DataFrame()
    rows = rows.rename(columns={"trainer/global_step": "step"})
    kind = rows.filter(like="val/").notna().any(axis="columns").map({True: "val", False: "train"})
    return rows.assign(kind=kind).groupby(["step", "kind"], as_index=False).last()


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in record.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
