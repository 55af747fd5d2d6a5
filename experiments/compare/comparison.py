"""Compare runs of one protocol: one row per name, all scored by the same code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from callbacks.errors import RunError
from experiments.compare import curves, intervals
from experiments.compare.differences import with_differences
from experiments.compare.intervals import Array
from experiments.compare.net_benefit import positive_class
from experiments.compare.options import differing
from experiments.compare.rows import Estimate, Row, rows_of
from experiments.compare.runs import TestedRun, check_comparable

if TYPE_CHECKING:
    from experiments.compare.external import ExternalTest


@dataclass(frozen=True)
class Comparison:
    """All rows, best first.

    Args:
        rows: Rows, sorted by balanced accuracy.
        weight: Count of each test image in each resample (R, N).
        baseline: Name of the row that all others are compared with, if any.
        notes: Sentences that belong beside the numbers.
        positive: Class whose net benefit is compared, if any.
        external: Tests of these runs on other data sets.
    """

    rows: tuple[Row, ...]
    weight: Array
    baseline: str | None
    notes: tuple[str, ...]
    positive: str | None = None
    external: tuple[ExternalTest, ...] = ()

    @property
    def synthetic(self) -> bool:
        return self.rows[0].runs[0].synthetic

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rows[0].runs[0].classes

    @property
    def group(self) -> str:
        """The unit of resampling: ``lesion``, ``patient`` or ``image``."""
        return self.rows[0].runs[0].group

    @cached_property
    def curves(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Curves of each row by the name of the row and of the curve.

        ``risk_coverage`` is that of :func:`~experiments.compare.curves.risk_coverage`, and
        ``net_benefit`` and ``net_benefit_corrected`` are those of
        :func:`~experiments.compare.curves.decision_curve`, if the test images show the positive
        class.
        """
        return {row.name: dict(self._curves(row)) for row in self.rows}

    def _curves(self, row: Row) -> Iterator[tuple[str, pd.DataFrame]]:
        if not row.decided:
            yield "risk_coverage", curves.risk_coverage(row, self.weight)
        if self.positive is None:
            return
        c = self.classes.index(self.positive)
        if curves.population(row.runs[0])[c]:
            yield "net_benefit", curves.decision_curve(row, self.weight, c, corrected=False)
            if not row.decided:
                name = "net_benefit_corrected"
                yield name, curves.decision_curve(row, self.weight, c, corrected=True)


def compare(
    runs: Sequence[TestedRun],
    resamples: int = 2000,
    baseline: str | None = None,
    notes: Iterable[str] = (),
    positive: str | None = None,
) -> Comparison:
    """Score runs by their test predictions.

    Args:
        runs: Runs of the same classes, test images and split, with any names and seeds.
        resamples: Number of bootstrap resamples of the lesions, shared by all runs.
        baseline: Name of the row that all others are compared with.
        notes: Sentences to add to the notes of the comparison.
        positive: Class whose net benefit is compared; by default melanoma, or the second of two
            classes.

    Raises:
        RunError: Two runs cannot be compared, or no row has the name ``baseline``, or no class the
            name ``positive``.
    """
    return compare_rows(list(rows_of(runs)), resamples, baseline, notes, positive)


def compare_rows(
    rows: list[Row],
    resamples: int = 2000,
    baseline: str | None = None,
    notes: Iterable[str] = (),
    positive: str | None = None,
) -> Comparison:
    """Compare rows that have no metrics yet, as :func:`compare` does runs."""
    runs = [run for row in rows for run in row.runs]
    check_comparable(runs)
    if baseline is not None and baseline not in [row.name for row in rows]:
        names = ", ".join(row.name for row in rows)
        raise RunError(f"No row is called {baseline!r}: set BASELINE to one of {names}.")
    positive = positive_class(runs[0].classes, positive)
    weight = intervals.lesion_weights(runs[0].lesion, runs[0].label, resamples)
    resampled: dict[str, Array] = {}
    for i, row in enumerate(rows):
        rows[i], resampled[row.name] = _scored(row, weight)
    if baseline is not None:
        rows = with_differences(rows, baseline, resampled)
    rows.sort(key=lambda row: -row.metrics["balanced_accuracy"].mean)
    remarks = (*notes, *_remarks(rows, baseline))
    return Comparison(tuple(rows), weight, baseline, remarks, positive)


def estimate(values: Array, resampled: Array | None = None) -> Estimate:
    """Mean over the seeds with its intervals.

    Args:
        values: Value of each seed (S,).
        resampled: Mean over the seeds in each resample of the lesions (R,), if known.
    """
    lesions = None if resampled is None else intervals.percentiles(resampled)
    return Estimate(float(values.mean()), intervals.over_seeds(values), lesions)


def _scored(row: Row, weight: Array) -> tuple[Row, Array]:
    """The row with its metrics, and the balanced accuracy of each seed and resample (S, R)."""
    exact, resampled = row.scores(np.ones((1, weight.shape[1]))), row.scores(weight)
    metrics = {
        name: estimate(values[:, 0], resampled[name].mean(0))
        for name, values in exact.items()
        if not np.isnan(values).any()
    }
    return replace(row, metrics=metrics), resampled["balanced_accuracy"]


def _remarks(rows: Sequence[Row], baseline: str | None) -> Iterable[str]:
    if single := [row.name for row in rows if len(row.runs) == 1]:
        which = "every row" if len(single) == len(rows) else ", ".join(single)
        yield f"A single seed has no interval over seeds: {which}."
    yield from _pairing(rows, baseline)
    for row in rows:
        if not row.decided and (names := differing(row.runs)):
            yield f"The seeds of {row.name} differ in more than the seed: {', '.join(names)}."
        for run in () if row.decided else row.runs:
            if run.remarks:
                yield f"Doubtful training of {row.name}, seed {run.seed}: {'; '.join(run.remarks)}."


def _pairing(rows: Sequence[Row], baseline: str | None) -> Iterable[str]:
    """A sentence for each row whose seeds are not those of the baseline."""
    base = next((row for row in rows if row.name == baseline), None)
    for row in rows:
        if base is None or row.difference is None or row.seeds == base.seeds:
            continue
        if shared := row.difference.shared_seeds:
            yield (
                f"{row.name} and {baseline} have different seeds: their difference and p-values "
                f"are of the shared ones only ({', '.join(map(str, shared))})."
            )
        else:
            yield (
                f"{row.name} and {baseline} share no seed: their difference is between the means "
                "of different seeds."
            )
