"""Whether the classes that lose contrast by compression are those that lose F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from callbacks.console import decimals
from experiments.compare.intervals import Interval, percentiles
from experiments.compare.metrics import by_confusion, confusion
from experiments.compare.rows import Row
from experiments.compare.runs import Run

Array = NDArray[Any]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, and its interval over lesions."""

    value: float
    lesions: Interval | None

    def __str__(self) -> str:
        value, *bounds = (decimals(x, 2) for x in (self.value, *(self.lesions or ())))
        return f"{value} [{', '.join(bounds)}]" if bounds else value


class Association(NamedTuple):
    """How lost contrast and lost F1 go together.

    Args:
        rows: Number of rows.
        pooled: Over the classes of all rows: also high where rows that lose more of both differ
            in nothing but how much they compress.
        within: Among the classes of a row, mean of the rows: whether it is the classes that differ.
    """

    rows: int
    pooled: Correlation
    within: Correlation


def association(rows: Sequence[Row], baseline: Row, weight: Array) -> Association | None:
    """Rank correlation of the contrast and the F1 that classes lose by compression.

    Args:
        rows: Those that measured contrast are taken, and of these not the baseline.
        baseline: What F1 is lost against.
        weight: How often each image counts in each resample (R, N).

    Returns:
        None without such a row, or where a class has no contrast or nothing is lost anywhere.
    """
    known = [
        row
        for row in rows
        if row is not baseline and not row.decided and all(r.contrast is not None for r in row.runs)
    ]
    if not known:
        return None

    def correlations(weight: Array) -> tuple[Array, Array]:
        before = _f1(baseline, weight)
        f1 = np.stack([before - _f1(row, weight) for row in known], axis=1)  # (R, rows, K)
        contrast = np.stack([_lost_contrast(row, weight) for row in known], axis=1)
        flat = (each.reshape(len(each), 1, -1) for each in (contrast, f1))
        return _spearman(*flat), _spearman(contrast, f1)

    exact = [float(each[0]) for each in correlations(np.ones((1, weight.shape[1])))]
    if np.isnan(exact).any():
        return None
    bounds = map(percentiles, correlations(weight))
    return Association(len(known), *map(Correlation, exact, bounds))


def _spearman(a: Array, b: Array) -> Array:
    """Of (R, rows, K) along K, mean of the rows in which something differs (R,)."""
    ranks = (stats.rankdata(values, axis=2) for values in (a, b))
    x, y = (rank - rank.mean(2, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing differs
        each = (x * y).sum(2) / np.sqrt((x**2).sum(2) * (y**2).sum(2))
        return np.nansum(each, axis=1) / (~np.isnan(each)).sum(1)


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
