"""Runs of one protocol side by side: a row for each name, judged by one code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callbacks.errors import RunError
from experiments.compare import intervals
from experiments.compare.intervals import Interval
from experiments.compare.metrics import scores
from experiments.compare.options import differing
from experiments.compare.runs import Run, comparable

Array = NDArray[Any]
BY_DECISION = " + decision"


@dataclass(frozen=True)
class Estimate:
    """A metric of a row.

    Args:
        mean: Over the seeds.
        seeds: Interval over seeds: other trainings, the same images. None for a single seed.
        lesions: Interval over lesions: the same trainings, other images.
    """

    mean: float
    seeds: Interval | None = None
    lesions: Interval | None = None


@dataclass(frozen=True)
class Difference:
    """What a row has over the baseline in balanced accuracy, and whether it may be chance.

    Args:
        mean: Over the seeds.
        lesions: Interval over lesions, which are resampled alike for both.
        p: Of the bootstrap.
        better: Lesions that the row has right more often.
        worse: Lesions that the baseline has right more often.
        p_mcnemar: Of McNemar's test on these.
        p_holm: ``p``, adjusted for the number of rows.
        p_mcnemar_holm: ``p_mcnemar``, adjusted for the number of rows.
    """

    mean: float
    lesions: Interval | None
    p: float
    better: int
    worse: int
    p_mcnemar: float
    p_holm: float = np.nan
    p_mcnemar_holm: float = np.nan


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one name that differ in their seeds.

    Args:
        name: As the tables show it.
        runs: One for each seed.
        decided: Whether it is judged by the runs' own decisions, not by the likeliest class.
        metrics: Name to estimate.
        difference: From the baseline, if there is one and this is not it.
    """

    name: str
    runs: tuple[Run, ...]
    decided: bool = False
    metrics: dict[str, Estimate] = field(default_factory=dict)
    difference: Difference | None = None

    @property
    def has_predictions(self) -> bool:
        return all(run.predictions is not None for run in self.runs)

    @cached_property
    def predictions(self) -> list[Array]:
        """Decided classes (N,) of each run."""
        if self.decided:
            return [run.decision for run in self.runs if run.decision is not None]
        return [run.probability.argmax(1) for run in self.runs]

    def scores(self, weight: Array) -> dict[str, Array]:
        """Metrics (S, R) of the S runs under R weightings of the images."""
        each = [
            scores(prediction, run.label, weight, run.classes, self._probability(run))
            for prediction, run in zip(self.predictions, self.runs, strict=True)
        ]
        return {name: np.stack([values[name] for values in each]) for name in each[0]}

    def right(self) -> Array:
        """Share (N,) of the runs that have each image right."""
        return np.mean([p == r.label for p, r in zip(self.predictions, self.runs, strict=True)], 0)

    def _probability(self, run: Run) -> Array | None:
        return None if self.decided else run.probability


@dataclass(frozen=True)
class Comparison:
    """All rows, best first.

    Args:
        rows: By balanced accuracy.
        weight: How often each test image counts in each resample (R, N); None without
            predictions.
        baseline: Name of the row that the others are set against.
        notes: Sentences that a reader should know.
    """

    rows: tuple[Row, ...]
    weight: Array | None
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
    rows = list(_rows(runs))
    if baseline is not None and baseline not in [row.name for row in rows]:
        names = ", ".join(row.name for row in rows)
        raise RunError(f"There is no baseline {baseline!r} among the rows: {names}.")
    weight = None
    if known := next((run for run in runs if run.predictions is not None), None):
        weight = intervals.lesion_weights(known.lesion, known.label, resamples)
    resampled: dict[str, Array] = {}
    for i, row in enumerate(rows):
        rows[i], values = _estimated(row, weight)
        resampled |= {row.name: values} if values is not None else {}
    rows = _against(baseline, rows, resampled)
    rows.sort(key=lambda row: -row.metrics["balanced_accuracy"].mean)
    return Comparison(tuple(rows), weight, baseline, (*notes, *_oddities(rows)))


def _rows(runs: Sequence[Run]) -> Iterable[Row]:
    for name in dict.fromkeys(run.name for run in runs):
        own = sorted((run for run in runs if run.name == name), key=lambda run: run.seed)
        yield Row(name, tuple(own))
        decided = [run for run in own if run.predictions is not None and run.decision is not None]
        if decided:
            yield Row(name + BY_DECISION, tuple(decided), decided=True)


def _estimated(row: Row, weight: Array | None) -> tuple[Row, Array | None]:
    """The row with its metrics, and its balanced accuracy in each resample (R,)."""
    if weight is None or not row.has_predictions:
        known = [run.metrics for run in row.runs]
        each = {name: np.array([m[name] for m in known]) for name in known[0]}
        metrics = {name: _estimate(values) for name, values in each.items()}
        return replace(row, metrics=metrics), None
    exact = row.scores(np.ones((1, weight.shape[1])))
    resampled = {name: values.mean(0) for name, values in row.scores(weight).items()}
    metrics = {
        name: _estimate(values[:, 0], resampled[name])
        for name, values in exact.items()
        if not np.isnan(values).any()
    }
    return replace(row, metrics=metrics), resampled["balanced_accuracy"]


def _estimate(values: Array, resampled: Array | None = None) -> Estimate:
    lesions = None if resampled is None else intervals.percentiles(resampled)
    return Estimate(float(values.mean()), intervals.over_seeds(values), lesions)


def _against(baseline: str | None, rows: list[Row], resampled: dict[str, Array]) -> list[Row]:
    if baseline is None or baseline not in resampled:
        return rows
    base = next(row for row in rows if row.name == baseline)
    found = {
        row.name: _difference(row, base, resampled[row.name] - resampled[baseline])
        for row in rows
        if row is not base and row.name in resampled
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


def _oddities(rows: Iterable[Row]) -> Iterable[str]:
    rows = list(rows)
    if single := [row.name for row in rows if len(row.runs) == 1]:
        which = "every row" if len(single) == len(rows) else ", ".join(single)
        yield f"One seed, and so no interval over seeds: {which}."
    if missing := [row.name for row in rows if not row.has_predictions]:
        yield f"No predictions, and so no interval over lesions: {', '.join(missing)}."
    for row in rows:
        if not row.decided and (names := differing(row.runs)):
            yield f"The seeds of {row.name} differ in more than the seed: {', '.join(names)}."
