"""Compression in a comparison: fidelity metrics, and how lost contrast relates to lost F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from callbacks.console import decimals
from experiments.compare.comparison import Comparison, estimate
from experiments.compare.intervals import Array, Interval, percentiles
from experiments.compare.metrics import by_confusion, confusion
from experiments.compare.rows import Row
from experiments.compare.runs import TestedRun

# Metrics of compressed images, which runs record and predictions do not contain, with titles.
MAIN_METRICS = {
    "bits_per_pixel": "bits per pixel",
    "values_ratio": "values, original to latent",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
MORE_METRICS = {
    "lesion_psnr": "PSNR in the lesion",
    "ms_ssim": "MS-SSIM",
    "mae": "mean absolute error",
}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, and its interval over lesions."""

    value: float
    lesions: Interval | None

    def __str__(self) -> str:
        value, *bounds = (decimals(x, 2) for x in (self.value, *(self.lesions or ())))
        return f"{value} [{', '.join(bounds)}]" if bounds else value


class Association(NamedTuple):
    """Correlation of lost contrast and lost F1.

    Args:
        rows: Number of rows.
        pooled: Correlation over all rows and classes. Also high if rows differ only in
            compression rate.
        within: Correlation over the classes of a row, averaged over the rows.
    """

    rows: int
    pooled: Correlation
    within: Correlation


def with_compression(comparison: Comparison) -> Comparison:
    """The comparison with the fidelity metrics of its rows and a note on lost contrast."""
    rows = tuple(_with_fidelity(row) for row in comparison.rows)
    baseline = next((row for row in rows if row.name == comparison.baseline), None)
    correlation = association(rows, baseline, comparison.weight) if baseline else None
    if baseline is None or correlation is None:
        return replace(comparison, rows=rows)
    note = (
        "Lesion contrast and F1 that the classes lose by compression, compared with "
        f"{baseline.name}: rank correlation {correlation.pooled} over the classes of "
        f"{correlation.rows} rows together, {correlation.within} over the classes within a row."
    )
    return replace(comparison, rows=rows, notes=(*comparison.notes, note))


def association(rows: Sequence[Row], baseline: Row, weight: Array) -> Association | None:
    """Rank correlation of the contrast and the F1 that classes lose by compression.

    Args:
        rows: Rows, of which those without measured contrast and the baseline are ignored.
        baseline: Row from whose F1 the loss is computed.
        weight: Count of each image in each resample (R, N).

    Returns:
        None if no row has measured contrast, if a class has none, or if no class loses any.
    """
    known = [
        row
        for row in rows
        if row is not baseline and not row.decided and all(r.fidelity is not None for r in row.runs)
    ]
    if not known:
        return None

    def correlations(weight: Array) -> tuple[Array, Array]:
        before = _f1(baseline, weight)
        f1 = np.stack([before - _f1(row, weight) for row in known], axis=1)  # (R, rows, K)
        contrast = np.stack([_lost_contrast(row, weight) for row in known], axis=1)
        flat = (values.reshape(len(values), 1, -1) for values in (contrast, f1))
        return _spearman(*flat), _spearman(contrast, f1)

    exact = [float(values[0]) for values in correlations(np.ones((1, weight.shape[1])))]
    if np.isnan(exact).any():
        return None
    bounds = map(percentiles, correlations(weight))
    return Association(len(known), *map(Correlation, exact, bounds))


def _with_fidelity(row: Row) -> Row:
    metrics = dict(row.metrics)
    for name in (*MAIN_METRICS, *MORE_METRICS):
        values = np.array([run.metrics.get(name, np.nan) for run in row.runs])
        if not np.isnan(values).any():
            metrics[name] = estimate(values)
    return replace(row, metrics=metrics)


def _spearman(a: Array, b: Array) -> Array:
    """Rank correlation of (R, rows, K) along K, averaged over the rows in which it exists (R,)."""
    from scipy.stats import rankdata  # takes a second to import

    ranks = (rankdata(values, axis=2) for values in (a, b))
    x, y = (rank - rank.mean(2, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing differs
        per_row = (x * y).sum(2) / np.sqrt((x**2).sum(2) * (y**2).sum(2))
        return np.nansum(per_row, axis=1) / (~np.isnan(per_row)).sum(1)


def _f1(row: Row, weight: Array) -> Array:
    """F1 of each class (R, K), averaged over the seeds."""
    per_seed = []
    for prediction, run in zip(row.predictions, row.runs, strict=True):
        table = confusion(prediction, run.label, weight, len(run.classes))
        values = by_confusion(table, run.classes)
        per_seed.append(np.stack([values[f"f1_{name}"] for name in run.classes], axis=1))
    return np.mean(per_seed, axis=0)


def _lost_contrast(row: Row, weight: Array) -> Array:
    """Contrast that each class loses (R, K), averaged over its images and the seeds."""
    return np.mean([_lost_in_run(run, weight) for run in row.runs], axis=0)


def _lost_in_run(run: TestedRun, weight: Array) -> Array:
    assert run.fidelity is not None
    before, after = (run.fidelity[f"contrast_{when}"].abs() for when in ("before", "after"))
    lost = (before - after).to_numpy()
    member = np.eye(len(run.classes))[run.label] * ~np.isnan(lost)[:, None]
    with np.errstate(invalid="ignore"):  # a class of which nothing was measured
        return (weight @ (member * np.nan_to_num(lost)[:, None])) / (weight @ member)
