"""Data of the charts of a row, such as learning curve, reliability and net benefit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from experiments.compare.intervals import LEVEL, Array
from experiments.compare.metrics import calibration_bin, confusion
from experiments.compare.net_benefit import THRESHOLDS, class_shares, for_shares, net_benefit
from experiments.compare.risk_coverage import COVERAGES, selective_risk
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


def risk_coverage(row: Row, weight: Array) -> pd.DataFrame:
    """Share of errors among the images of highest confidence, by their share of all images.

    Args:
        row: A row with probabilities.
        weight: Count of each image in each resample (R, N).

    Returns:
        Column ``coverage``, and the mean over the seeds with its interval over lesions as ``mean``,
        ``low`` and ``high``.
    """

    def risk(weight: Array) -> Array:
        per_seed = [
            selective_risk(run.probability.max(1), run.probability.argmax(1) != run.label, weight)
            for run in row.runs
        ]
        return np.mean(per_seed, axis=0)

    ones = np.ones((1, weight.shape[1]))
    return _band("coverage", COVERAGES, risk(ones)[0], risk(weight))


def decision_curve(row: Row, weight: Array, positive: int, corrected: bool) -> pd.DataFrame:
    """Net benefit of treating one class, by the probability from which it is treated.

    A row of decisions treats the images that are decided for the class, at any threshold.

    Args:
        row: A row.
        weight: Count of each image in each resample (R, N).
        positive: The class that treatment is for, which must have test images.
        corrected: Whether to correct the probabilities from even class frequencies to those of the
            population, see :func:`~experiments.compare.net_benefit.for_shares`.

    Returns:
        Column ``threshold``, and the mean over the seeds with its interval over lesions as
        ``mean``, ``low`` and ``high``.
    """
    run = row.runs[0]
    share = population(run)
    if row.decided:
        per_seed = [(p == positive)[:, None].repeat(len(THRESHOLDS), 1) for p in row.predictions]
    else:
        per_seed = [
            probability[:, positive, None] >= THRESHOLDS
            for probability in _probabilities(row, share if corrected else None)
        ]
    treated = np.mean(per_seed, axis=0)
    ones = np.ones((1, weight.shape[1]))
    exact, resampled = (net_benefit(treated, run.label, w, share, positive) for w in (ones, weight))
    return _band("threshold", THRESHOLDS, exact[0], resampled)


def mean_probability(row: Row, positive: int, corrected: bool) -> float:
    """Mean probability of a class in the population; if calibrated, it is the share of the class.

    Args:
        row: A row with probabilities.
        positive: The class.
        corrected: As for :func:`decision_curve`.
    """
    run = row.runs[0]
    share = population(run)
    weight = share[run.label] / np.bincount(run.label, minlength=len(share))[run.label]
    probabilities = _probabilities(row, share if corrected else None)
    return float(np.mean([weight @ probability[:, positive] for probability in probabilities]))


def population(run: TestedRun) -> Array:
    """Share of each class in the data set, or among the test images if that is not known (K,)."""
    return class_shares(run.label, len(run.classes), run.frequency)


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


def _probabilities(row: Row, share: Array | None) -> Iterator[Array]:
    for run in row.runs:
        yield run.probability if share is None else for_shares(run.probability, share)


def _band(name: str, at: Array, mean: Array, resampled: Array) -> pd.DataFrame:
    bounds = np.full((2, len(at)), np.nan)
    if len(resampled):
        bounds = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return pd.DataFrame({name: at, "mean": mean, "low": bounds[0], "high": bounds[1]})


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
