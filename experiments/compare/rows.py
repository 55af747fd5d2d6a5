"""Rows of a comparison: the runs of one name with their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from callbacks.recording.lesions import image_weights
from experiments.compare.intervals import Array, Interval
from experiments.compare.metrics import scores, set_scores
from experiments.compare.runs import TestedRun

BY_DECISION = " + decision"


@dataclass(frozen=True)
class Estimate:
    """A metric of a row.

    Args:
        mean: Mean over the seeds.
        seeds: Interval over seeds (other training runs, same images); None for a single seed.
        lesions: Interval over lesions (same training runs, other images). None if a resample
            has no value, or if the metric cannot be computed from predictions.
    """

    mean: float
    seeds: Interval | None = None
    lesions: Interval | None = None


@dataclass(frozen=True)
class Difference:
    """Difference of a row from the baseline in balanced accuracy.

    Args:
        mean: Mean over the shared seeds.
        seeds: Interval over seeds of the paired differences; None for fewer than two shared seeds.
        lesions: Interval over lesions, which are resampled alike for both rows.
        p: P-value of the bootstrap.
        better: Number of lesions that the row classifies correctly more often.
        worse: Number of lesions that the baseline classifies correctly more often.
        p_mcnemar: P-value of McNemar's test on these lesions.
        shared_seeds: Seeds of both rows, over which all values are computed. If empty, the values
            are of all seeds of both rows.
        p_holm: ``p``, adjusted for the number of rows.
        p_mcnemar_holm: ``p_mcnemar``, adjusted for the number of rows.
    """

    mean: float
    seeds: Interval | None
    lesions: Interval | None
    p: float
    better: int
    worse: int
    p_mcnemar: float
    shared_seeds: tuple[int, ...]
    p_holm: float = np.nan
    p_mcnemar_holm: float = np.nan


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one name that differ in their seeds.

    Args:
        name: Name in the tables.
        runs: One run per seed, sorted by seed.
        decided: Whether predictions follow the runs' decision rules instead of the most likely
            class.
        metrics: Estimate of each metric by name.
        difference: Difference from the baseline; None for the baseline or without one.
    """

    name: str
    runs: tuple[TestedRun, ...]
    decided: bool = False
    metrics: dict[str, Estimate] = field(default_factory=dict)
    difference: Difference | None = None

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @cached_property
    def predictions(self) -> list[Array]:
        """Predicted classes (N,) of each run."""
        if self.decided:
            return [run.decision for run in self.runs if run.decision is not None]
        return [run.probability.argmax(1) for run in self.runs]

    def of_runs(self, indices: Sequence[int]) -> Row:
        """The row with some of its runs, for which ``metrics`` and ``difference`` do not hold."""
        runs = tuple(self.runs[i] for i in indices)
        return replace(self, runs=runs, metrics={}, difference=None)

    def scores(self, weight: Array) -> dict[str, Array]:
        """Metrics (S, R) of the S runs under R weightings of the images."""
        per_run = [
            scores(
                prediction,
                run.label,
                weight,
                run.classes,
                None if self.decided else run.probability,
                run.frequency,
                run.shots,
            )
            | self._set_scores(run, weight)
            for prediction, run in zip(self.predictions, self.runs, strict=True)
        ]
        shared = [name for name in per_run[0] if all(name in values for values in per_run)]
        return {name: np.stack([values[name] for values in per_run]) for name in shared}

    def _set_scores(self, run: TestedRun, weight: Array) -> dict[str, Array]:
        if self.decided or run.sets is None:
            return {}
        once = weight * image_weights(run.lesion)  # each lesion, as in results.json
        return set_scores(run.sets, run.label, once, run.classes)

    def right(self) -> Array:
        """Share of the runs that classify each image correctly (N,)."""
        return np.mean([p == r.label for p, r in zip(self.predictions, self.runs, strict=True)], 0)


def rows_of(runs: Sequence[TestedRun]) -> Iterator[Row]:
    """One row without metrics per name, and a second one for the runs that have a decision."""
    for name in dict.fromkeys(run.name for run in runs):
        same_name = sorted((run for run in runs if run.name == name), key=lambda run: run.seed)
        yield Row(name, tuple(same_name))
        if decided := [run for run in same_name if run.decision is not None]:
            yield Row(name + BY_DECISION, tuple(decided), decided=True)
