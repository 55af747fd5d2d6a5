"""What is drawn of a row: its learning, its precision at each recall, its reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.compare.metrics import confusion
from experiments.compare.rows import Row
from experiments.compare.runs import Run

Array = NDArray[Any]
POINTS = 200
LEVELS = np.linspace(0, 1, 51)
BINS = 10


def learning(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Mean, low and high over the seeds of a metric at each epoch, at most ``POINTS`` of them."""
    columns = [
        run.history.dropna(subset=[metric, "epoch"]).sort_values("step").groupby("epoch")[metric]
        for run in runs
        if metric in run.history
    ]
    if not columns:
        return pd.DataFrame(columns=["epoch", "mean", "low", "high"])
    # What `make decide` validates is of step 0; the epoch's own comes last.
    reduced = [c.last() if metric.startswith("val/") else c.mean() for c in columns]
    table = pd.concat(reduced, axis=1).sort_index()
    kept = np.unique(np.linspace(0, len(table) - 1, min(len(table), POINTS)).round().astype(int))
    table = table.iloc[kept]
    bounds = {"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)}
    return pd.DataFrame(bounds).rename_axis("epoch").reset_index()


def precision_recall(row: Row, c: int) -> Array:
    """Precision of class ``c`` at each of the recalls ``LEVELS``, the mean over the seeds."""
    each = [_precision_at(run.probability[:, c], run.label == c) for run in row.runs]
    return np.mean(each, axis=0)


def reliability(row: Row, c: int | None) -> pd.DataFrame:
    """Probability said and share found in bins of the probability, of all seeds together.

    Args:
        row: With probabilities.
        c: A class against the others; None is the likeliest class, whose gaps the ECE averages.
    """
    said = [run.probability.max(1) if c is None else run.probability[:, c] for run in row.runs]
    found = [
        run.probability.argmax(1) == run.label if c is None else run.label == c for run in row.runs
    ]
    table = pd.DataFrame({"said": np.concatenate(said), "found": np.concatenate(found)})
    bins = np.minimum((table["said"] * BINS).astype(int), BINS - 1)
    grouped = table.groupby(bins)
    return grouped.mean().assign(images=grouped.size()).reset_index(drop=True)


def mean_confusion(row: Row) -> Array:
    """Images of each true class (row) given to each class (column), the mean over the seeds."""
    label, k = row.runs[0].label, len(row.runs[0].classes)
    ones = np.ones((1, len(label)))
    return np.mean([confusion(p, label, ones, k)[0] for p in row.predictions], axis=0)


def _precision_at(score: Array, positive: Array) -> Array:
    """Precision at the highest threshold that reaches each recall; NaN without positives."""
    order = np.argsort(-score, kind="stable")
    found = positive[order].cumsum()
    last = np.append(np.diff(score[order]) != 0, True)  # of a tie, all or none
    found, taken = found[last], (np.arange(len(order)) + 1)[last]
    if not positive.any():
        return np.full(len(LEVELS), np.nan)
    at = np.searchsorted(found, np.ceil(LEVELS * positive.sum() - 1e-9), side="left")
    return (found / taken)[at]
