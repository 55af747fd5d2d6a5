"""Data of the charts of a row: learning curve, precision and recall, reliability, confusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.compare.intervals import Array
from experiments.compare.metrics import calibration_bin, confusion
from experiments.compare.rows import Row
from experiments.compare.runs import TestedRun

MAX_POINTS = 200
RECALL_LEVELS = np.linspace(0, 1, 51)


def learning(runs: Sequence[TestedRun], metric: str) -> pd.DataFrame:
    """Mean, lowest and highest value over the seeds at up to ``MAX_POINTS`` epochs, from 1."""
    columns = [
        run.history.dropna(subset=[metric, "epoch"]).sort_values("step").groupby("epoch")[metric]
        for run in runs
        if metric in run.history
    ]
    if not columns:
        return pd.DataFrame(columns=["epoch", "mean", "low", "high"])
    # `make decide` validates at step 0; the value of the epoch itself comes last.
    reduced = [c.last() if metric.startswith("val/") else c.mean() for c in columns]
    table = pd.concat(reduced, axis=1).sort_index()
    kept = np.unique(
        np.linspace(0, len(table) - 1, min(len(table), MAX_POINTS)).round().astype(int)
    )
    table = table.iloc[kept]
    bounds = {"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)}
    curve = pd.DataFrame(bounds).rename_axis("epoch").reset_index()
    return curve.assign(epoch=curve["epoch"] + 1)  # recorded from 0, shown from 1


def precision_recall(row: Row, c: int) -> Array:
    """Precision of class ``c`` at each of the ``RECALL_LEVELS``, averaged over the seeds."""
    per_seed = [_precision_at(run.probability[:, c], run.label == c) for run in row.runs]
    return np.mean(per_seed, axis=0)


def reliability(row: Row, c: int | None) -> pd.DataFrame:
    """Mean predicted probability and observed frequency in the bins of the ECE, over all seeds.

    Args:
        row: A row with probabilities.
        c: Class that is set against all others; None for the most likely class, whose gaps the
            ECE averages.
    """
    predicted = [run.probability.max(1) if c is None else run.probability[:, c] for run in row.runs]
    observed = [
        run.probability.argmax(1) == run.label if c is None else run.label == c for run in row.runs
    ]
    columns = {"predicted": np.concatenate(predicted), "observed": np.concatenate(observed)}
    table = pd.DataFrame(columns)
    grouped = table.groupby(calibration_bin(columns["predicted"]))
    return grouped.mean().assign(images=grouped.size()).reset_index(drop=True)


def mean_confusion(row: Row) -> Array:
    """Number of images of each true class (row) and predicted class, averaged over the seeds."""
    label, k = row.runs[0].label, len(row.runs[0].classes)
    ones = np.ones((1, len(label)))
    return np.mean([confusion(p, label, ones, k)[0] for p in row.predictions], axis=0)


def rounded_rows(table: Array, unit: float = 0.1) -> Array:
    """Round to multiples of ``unit`` such that each row keeps its sum (largest remainders)."""
    exact = table / unit
    floor = np.floor(exact + 1e-9)
    missing = np.rint((exact - floor).sum(1)).astype(int)
    order = np.argsort(np.argsort(floor - exact, axis=1, kind="stable"), axis=1)
    return np.round((floor + (order < missing[:, None])) * unit, 9)


def _precision_at(score: Array, positive: Array) -> Array:
    """Precision at the highest threshold that reaches each recall level; NaN without positives."""
    order = np.argsort(-score, kind="stable")
    hits = positive[order].cumsum()
    last = np.append(np.diff(score[order]) != 0, True)  # of a tie, all or none
    hits, predicted = hits[last], (np.arange(len(order)) + 1)[last]
    if not positive.any():
        return np.full(len(RECALL_LEVELS), np.nan)
    at = np.searchsorted(hits, np.ceil(RECALL_LEVELS * positive.sum() - 1e-9), side="left")
    return (hits / predicted)[at]
