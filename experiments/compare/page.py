"""The comparison as a page: a single HTML file that works offline."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from experiments.compare import compression, curves
from experiments.compare.comparison import Comparison
from experiments.compare.external import ExternalTest
from experiments.compare.gallery import attention_scores, thumbnails
from experiments.compare.net_benefit import THRESHOLDS, treat_all
from experiments.compare.options import options
from experiments.compare.other_tables import CHANGE_LEGEND, Subgroups, subgroups
from experiments.compare.resources import resources
from experiments.compare.risk_coverage import COVERAGES
from experiments.compare.rows import Row
from experiments.compare.runs import TestedRun
from experiments.compare.subgroups import MIN_LESIONS, Group
from experiments.compare.table import (
    MAIN_METRICS,
    SYNTHETIC,
    WITH_INTERVAL,
    difference_legend,
    legend,
)

WEB = Path(__file__).parent / "web"
# In the order of their imports.
MODULES = (
    "data", "elements", "charts", "tables", "others", "drawings", "decisions", "attention", "tabs",
)  # fmt: skip
MORE_METRICS = {
    "accuracy": "accuracy",
    "brier": "Brier score",
    "nll": "NLL",
    "ece": "ECE",
    "classwise_ece": "class-wise ECE",
    "aurc": "AURC",
    "average_precision": "average precision",
    "ppv": "PPV",
    "npv": "NPV",
    **compression.MORE_METRICS,
}
LEARNING_CURVES = {"val/balanced_accuracy": "validation", "train/loss": "training"}


def render(comparison: Comparison, tests: Sequence[Subgroups] | None = None) -> str:
    """Render the page, which contains the comparison as JSON.

    Args:
        comparison: The comparison.
        tests: Its subgroups, if they are known already.
    """
    tests = subgroups(comparison) if tests is None else tests
    environment = Environment(loader=FileSystemLoader(WEB), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    template = environment.get_template("page.html.j2")
    shown_elsewhere = [*difference_legend(comparison), SYNTHETIC]
    return template.render(
        data=_plain(_data(comparison, tests)),
        legend=[line for line in legend(comparison) if line not in shown_elsewhere],
        script=Markup(script()),
        rows=len(comparison.rows),
        runs=len(_runs(comparison)),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        synthetic=comparison.synthetic,
        group=comparison.group,
    )


def script() -> str:
    """The modules of the page as one script, since a page in a single file cannot import any."""
    text = "\n".join((WEB / f"{name}.js").read_text("utf-8") for name in MODULES)
    text = re.sub(r"^import\b[^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export (?=const|function)", "", text, flags=re.MULTILINE)


def _data(comparison: Comparison, tests: Sequence[Subgroups]) -> dict[str, object]:
    runs = _runs(comparison)
    images, left_out = thumbnails(runs)
    first = comparison.rows[0].runs[0]
    known = {name for row in comparison.rows for name in row.metrics}
    titles = {name: title for name, title in (MAIN_METRICS | MORE_METRICS).items() if name in known}
    return {
        "classes": comparison.classes,
        "columns": [
            {"name": name, "title": title, "interval": name in WITH_INTERVAL}
            for name, title in titles.items()
        ],
        "class_titles": {name: first.titles.get(name, name) for name in comparison.classes},
        "shots": first.shots,
        "baseline": comparison.baseline,
        "group": comparison.group,
        "difference_legend": tuple(difference_legend(comparison)),
        "levels": curves.RECALL_LEVELS,
        "coverages": COVERAGES,
        "treatment": _treatment(comparison),
        "positive": comparison.positive,
        "subgroups": [_subgroups(test) for test in tests],
        "min_lesions": MIN_LESIONS,
        "external": [_external(test) for test in comparison.external],
        "change_legend": CHANGE_LEGEND,
        "rows": [_row(row, comparison) for row in comparison.rows],
        "runs": [
            {"name": _name(run), "row": run.name, "options": changed}
            for run, changed in zip(runs, _options(runs), strict=True)
        ],
        "images": [[_name(image.run), image.file, image.jpeg] for image in images],
        "images_left_out": left_out,
    }


def _row(row: Row, comparison: Comparison) -> dict[str, object]:
    record: dict[str, object] = {
        "name": row.name,
        "seeds": [run.seed for run in row.runs],
        "decided": row.decided,
        "metrics": {name: asdict(estimate) for name, estimate in row.metrics.items()},
        "difference": row.difference and asdict(row.difference),
        "resources": asdict(resources(row.runs)),
    }
    if not row.decided:
        k = len(comparison.classes)
        record["attention"] = attention_scores(row.runs)
        record["learning"] = {
            title: curves.learning(row.runs, metric).to_dict("list")
            for metric, title in LEARNING_CURVES.items()
        }
        record["precision"] = [curves.precision_recall(row, c) for c in range(k)]
        record["reliability"] = [
            curves.reliability(row, c).to_dict("list") for c in [*range(k), None]
        ]
    for name, curve in comparison.curves[row.name].items():
        record[name] = curve[["mean", "low", "high"]].to_dict("list")
    if "net_benefit_corrected" in record:
        c = comparison.classes.index(str(comparison.positive))
        record["mean_probability"] = [
            curves.mean_probability(row, c, corrected) for corrected in (False, True)
        ]
    record["confusion"] = curves.rounded_rows(curves.mean_confusion(row))
    return record


def _treatment(comparison: Comparison) -> dict[str, object] | None:
    """The class of the decision curves, its share of the population, and treating everybody."""
    run, positive = comparison.rows[0].runs[0], comparison.positive
    if positive is None or "net_benefit" not in comparison.curves[comparison.rows[0].name]:
        return None
    share, c = curves.population(run), comparison.classes.index(positive)
    return {
        "positive": positive,
        "prevalence": share[c],
        "of_data_set": run.frequency is not None,
        "thresholds": THRESHOLDS,
        "treat_all": treat_all(share, c),
    }


def _subgroups(test: Subgroups) -> dict[str, object]:
    return {
        "test": test.test,
        "group": test.group,
        "groups": [_group(group) for group in test.groups],
        "scores": {
            name: tuple(score and asdict(score) for score in of_row)
            for name, of_row in test.scores.items()
        },
        "gaps": {name: tuple(map(asdict, of_row)) for name, of_row in test.gaps.items()},
    }


def _group(group: Group) -> dict[str, object]:
    record = asdict(group)
    del record["where"], record["rest"]
    return record


def _external(test: ExternalTest) -> dict[str, object]:
    rows = [
        {
            "name": row.name,
            "seeds": len(row.runs),
            **asdict(test.changes[row.name]),
            "recall": {
                name: asdict(row.metrics[f"recall_{name}"])
                for name in test.comparison.classes
                if f"recall_{name}" in row.metrics
            },
        }
        for row in test.comparison.rows
    ]
    return {"name": test.name, "legend": test.legend, "group": test.group, "rows": tuple(rows)}


def _options(runs: Sequence[TestedRun]) -> list[dict[str, str]]:
    """The options of each run, without those that all runs share."""
    per_run = [options(run.config) for run in runs]
    shared = set.intersection(*(set(flat.items()) for flat in per_run))
    return [dict(item for item in flat.items() if item not in shared) for flat in per_run]


def _runs(comparison: Comparison) -> list[TestedRun]:
    return [run for row in comparison.rows if not row.decided for run in row.runs]


def _name(run: TestedRun) -> str:
    return f"{run.name} seed {run.seed}"


def _plain(value: object) -> object:
    """Convert to JSON's types; null stands for NaN and infinity.

    Lists and arrays, which become charts, are rounded to save space. Other numbers become text:
    they are not rounded here, since the page would then round them a second time.
    """
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | list):
        return [_rounded(_plain(item)) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value
