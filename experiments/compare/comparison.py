"""Runs of one protocol side by side: a row for each name, judged by one code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callbacks.errors import RunError
from experiments.compare import intervals
from experiments.compare.contrast import association
from experiments.compare.options import differing
from experiments.compare.rows import Difference, Estimate, Row, rows_of
from experiments.compare.runs import Run, comparable

Array = NDArray[Any]
# What runs record of compressed images, which no prediction tells.
FIDELITY = ("bits_per_pixel", "values_ratio", "psnr", "lesion_psnr", "ssim", "ms_ssim", "mae")


@dataclass(frozen=True)
class Comparison:
    """All rows, best first.

    Args:
        rows: By balanced accuracy.
        weight: How often each test image counts in each resample (R, N).
        baseline: Name of the row that the others are set against.
        notes: Sentences that a reader should know.
    """

    rows: tuple[Row, ...]
    weight: Array
    baseline: str | None
    notes: tuple[str, ...]

    @property
    def synthetic(self) -> bool:
        return self.rows[0].runs[0].synthetic

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rows[0].runs[0].classes


def compare(
    runs: Sequence[Run],
    resamples: int = 2000,
    baseline: str | None = None,
    notes: Iterable[str] = (),
) -> Comparison:
    """Judges runs that were asked the same, each by its test predictions.

    Args:
        runs: With any names and seeds.
        resamples: Of the lesions, the same for all runs.
        baseline: Name of a row.
        notes: What reading the runs left to say.

    Raises:
        RunError: Two runs were not asked the same, or there is no such baseline.
    """
    comparable(runs)
    rows = list(rows_of(runs))
    if baseline is not None and baseline not in [row.name for row in rows]:
        names = ", ".join(row.name for row in rows)
        raise RunError(f"There is no baseline {baseline!r} among the rows: {names}.")
    weight = intervals.lesion_weights(runs[0].lesion, runs[0].label, resamples)
    resampled: dict[str, Array] = {}
    for i, row in enumerate(rows):
        rows[i], resampled[row.name] = _estimated(row, weight)
    rows = _against(baseline, rows, resampled)
    notes = [*notes, *_contrast(baseline, rows, weight)]
    rows.sort(key=lambda row: -row.metrics["balanced_accuracy"].mean)
    return Comparison(tuple(rows), weight, baseline, (*notes, *_oddities(rows)))


def _estimated(row: Row, weight: Array) -> tuple[Row, Array]:
    """The row with its metrics, and its balanced accuracy in each resample (R,)."""
    exact = row.scores(np.ones((1, weight.shape[1])))
    resampled = {name: values.mean(0) for name, values in row.scores(weight).items()}
    metrics = {
        name: _estimate(values[:, 0], resampled[name])
        for name, values in exact.items()
        if not np.isnan(values).any()
    }
    for name in FIDELITY:
        values = np.array([run.metrics.get(name, np.nan) for run in row.runs])
        if not np.isnan(values).any():
            metrics[name] = _estimate(values)
    return replace(row, metrics=metrics), resampled["balanced_accuracy"]


def _estimate(values: Array, resampled: Array | None = None) -> Estimate:
    lesions = None if resampled is None else intervals.percentiles(resampled)
    return Estimate(float(values.mean()), intervals.over_seeds(values), lesions)


def _against(baseline: str | None, rows: list[Row], resampled: dict[str, Array]) -> list[Row]:
    if baseline is None:
        return rows
    base = next(row for row in rows if row.name == baseline)
    found = {
        row.name: _difference(row, base, resampled[row.name] - resampled[baseline])
        for row in rows
        if row is not base
    }
    by_bootstrap = intervals.holm([d.p for d in found.values()])
    by_mcnemar = intervals.holm([d.p_mcnemar for d in found.values()])
    for (name, difference), p, q in zip(found.items(), by_bootstrap, by_mcnemar, strict=True):
        found[name] = replace(difference, p_holm=p, p_mcnemar_holm=q)
    return [replace(row, difference=found.get(row.name)) for row in rows]


def _difference(row: Row, base: Row, resampled: Array) -> Difference:
    better, worse, p = intervals.mcnemar(row.right(), base.right(), base.runs[0].lesion)
    return Difference(
        mean=row.metrics["balanced_accuracy"].mean - base.metrics["balanced_accuracy"].mean,
        lesions=intervals.percentiles(resampled),
        p=intervals.bootstrap_p(resampled),
        better=better,
        worse=worse,
        p_mcnemar=p,
    )


def _contrast(baseline: str | None, rows: Sequence[Row], weight: Array) -> Iterable[str]:
    base = next((row for row in rows if row.name == baseline), None)
    if base is not None and (found := association(rows, base, weight)):
        yield (
            "Contrast to skin that classes lose by compression, and F1 that they lose against "
            f"{baseline}: rank correlation {found.pooled} over the classes of {found.rows} rows "
            f"together, {found.within} among the classes of a row."
        )


def _oddities(rows: Iterable[Row]) -> Iterable[str]:
    rows = list(rows)
    if single := [row.name for row in rows if len(row.runs) == 1]:
        which = "every row" if len(single) == len(rows) else ", ".join(single)
        yield f"One seed, and so no interval over seeds: {which}."
    for row in rows:
        if not row.decided and (names := differing(row.runs)):
            yield f"The seeds of {row.name} differ in more than the seed: {', '.join(names)}."
        for run in () if row.decided else row.runs:
            if run.remarks:
                yield f"Doubtful training of {row.name}, seed {run.seed}: {'; '.join(run.remarks)}."
