"""Whether the classes that lose contrast by compression are those that lose F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.compare.intervals import Interval, percentiles
from experiments.compare.metrics import by_confusion, confusion
from experiments.compare.rows import Row
from experiments.compare.runs import Run

Array = NDArray[Any]


def association(
    rows: Sequence[Row], baseline: Row, weight: Array
) -> tuple[int, float, Interval | None] | None:
    """Rank correlation (Spearman) of lost contrast and lost F1, over classes and rows.

    Args:
        rows: Those that measured contrast are taken, and of these not the baseline.
        baseline: What F1 is lost against.
        weight: How often each image counts in each resample (R, N).

    Returns:
        Number of rows, correlation, and its interval over lesions; None without such a row,
        or where a class has no contrast.
    """
    known = [
        row
        for row in rows
        if row is not baseline and not row.decided and all(r.contrast is not None for r in row.runs)
    ]
    if not known:
        return None

    def correlation(weight: Array) -> Array:
        before = _f1(baseline, weight)
        lost = np.concatenate([before - _f1(row, weight) for row in known], axis=1)
        contrast = np.concatenate([_lost_contrast(row, weight) for row in known], axis=1)
        ranks = [stats.rankdata(values, axis=1) for values in (contrast, lost)]
        x, y = (rank - rank.mean(1, keepdims=True) for rank in ranks)
        with np.errstate(invalid="ignore"):  # nothing is lost anywhere
            return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))

    exact = correlation(np.ones((1, weight.shape[1])))[0]
    if np.isnan(exact):
        return None
    return len(known), float(exact), percentiles(correlation(weight))


def _f1(row: Row, weight: Array) -> Array:
    """Of each class (R, K), mean over the seeds."""
    each = []
    for prediction, run in zip(row.predictions, row.runs, strict=True):
        table = confusion(prediction, run.label, weight, len(run.classes))
        values = by_confusion(table, run.classes)
        each.append(np.stack([values[f"f1_{name}"] for name in run.classes], axis=1))
    return np.mean(each, axis=0)


def _lost_contrast(row: Row, weight: Array) -> Array:
    """Of each class (R, K), mean over its images and over the seeds."""
    return np.mean([_of_run(run, weight) for run in row.runs], axis=0)


def _of_run(run: Run, weight: Array) -> Array:
    assert run.contrast is not None
    measured = ~np.isnan(run.contrast)
    member = np.eye(len(run.classes))[run.label] * measured[:, None]
    with np.errstate(invalid="ignore"):  # a class of which nothing was measured
        return (weight @ (member * np.nan_to_num(run.contrast)[:, None])) / (weight @ member)
