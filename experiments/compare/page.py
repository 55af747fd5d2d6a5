"""The comparison as a page: one file of HTML that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader

from experiments.compare import curves
from experiments.compare.comparison import Comparison
from experiments.compare.cost import cost
from experiments.compare.gallery import thumbnails
from experiments.compare.options import options
from experiments.compare.rows import Row
from experiments.compare.runs import Run
from experiments.compare.subgroups import Group, group_scores, groups
from experiments.compare.table import SHOWN, legend

MORE = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "average_precision": "average precision",
    "ppv": "PPV",
    "npv": "NPV",
    "lesion_psnr": "PSNR in the lesion",
    "ms_ssim": "MS-SSIM",
    "mae": "mean absolute error",
}
LEARNING = {"val/balanced_accuracy": "validation", "train/loss": "training"}


def render(comparison: Comparison) -> str:
    """The page, with the comparison as JSON within it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "web"), autoescape=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    template = environment.get_template("page.html.j2")
    return template.render(
        data=_plain(_data(comparison)),
        legend=legend(comparison),
        rows=len(comparison.rows),
        runs=len(_runs(comparison)),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        synthetic=comparison.synthetic,
    )


def _data(comparison: Comparison) -> dict[str, Any]:
    runs = _runs(comparison)
    parts = groups(comparison.rows[0])
    images, left_out = thumbnails(runs)
    known = {name for row in comparison.rows for name in row.metrics}
    titles = {name: title for name, title in (SHOWN | MORE).items() if name in known}
    return {
        "classes": comparison.classes,
        "columns": [{"name": name, "title": title} for name, title in titles.items()],
        "baseline": comparison.baseline,
        "levels": curves.LEVELS,
        "groups": [_group(part) for part in parts],
        "rows": [_row(row, parts, comparison) for row in comparison.rows],
        "runs": [
            {"name": _name(run), "row": run.name, "options": different}
            for run, different in zip(runs, _options(runs), strict=True)
        ],
        "images": [[_name(image.run), image.file, image.jpeg] for image in images],
        "images_left_out": left_out,
    }


def _row(row: Row, parts: Sequence[Group], comparison: Comparison) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": row.name,
        "seeds": [run.seed for run in row.runs],
        "decided": row.decided,
        "metrics": {name: asdict(estimate) for name, estimate in row.metrics.items()},
        "difference": row.difference and asdict(row.difference),
        "cost": asdict(cost(row.runs)),
    }
    if not row.decided:
        record["learning"] = {
            title: curves.learning(row.runs, metric).to_dict("list")
            for metric, title in LEARNING.items()
        }
    record["confusion"] = curves.mean_confusion(row)
    scored = [group_scores(row, part, comparison.weight) for part in parts]
    record["groups"] = [asdict(one) for one in scored]
    if not row.decided:
        k = len(comparison.classes)
        record["precision"] = [curves.precision_recall(row, c) for c in range(k)]
        record["reliability"] = [
            curves.reliability(row, c).to_dict("list") for c in [*range(k), None]
        ]
    return record


def _group(part: Group) -> dict[str, Any]:
    record = asdict(part)
    del record["where"]
    return record


def _options(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Each run's options but those that all runs share."""
    each = [options(run.config) for run in runs]
    shared = set.intersection(*(set(one.items()) for one in each))
    return [dict(item for item in one.items() if item not in shared) for one in each]


def _runs(comparison: Comparison) -> list[Run]:
    return [run for row in comparison.rows if not row.decided for run in row.runs]


def _name(run: Run) -> str:
    return f"{run.name} seed {run.seed}"


def _plain(value: Any) -> Any:
    """What JSON has: numbers, lists, and null for what is not a number.

    Lists and arrays are drawn, and rounded to be small. Other numbers are read: rounded here, the
    page would round them twice, and the tables once.
    """
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | list):
        return [_rounded(_plain(one)) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
