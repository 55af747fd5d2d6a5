"""Rows of a comparison: the runs of one name, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.compare.intervals import Interval
from experiments.compare.metrics import scores
from experiments.compare.runs import Run

Array = NDArray[Any]
BY_DECISION = " + decision"


@dataclass(frozen=True)
class Estimate:
    """A metric of a row.

    Args:
        mean: Over the seeds.
        seeds: Interval over seeds: other trainings, the same images. None for a single seed.
        lesions: Interval over lesions: the same trainings, other images. None if some resample
            has no value, or if predictions do not tell.
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

    @cached_property
    def predictions(self) -> list[Array]:
        """Decided classes (N,) of each run."""
        if self.decided:
            return [run.decision for run in self.runs if run.decision is not None]
        return [run.probability.argmax(1) for run in self.runs]

    def scores(self, weight: Array) -> dict[str, Array]:
        """Metrics (S, R) of the S runs under R weightings of the images."""
        each = [
            scores(
                prediction,
                run.label,
                weight,
                run.classes,
                None if self.decided else run.probability,
                run.frequency,
            )
            for prediction, run in zip(self.predictions, self.runs, strict=True)
        ]
        return {name: np.stack([values[name] for values in each]) for name in each[0]}

    def right(self) -> Array:
        """Share (N,) of the runs that have each image right."""
        return np.mean([p == r.label for p, r in zip(self.predictions, self.runs, strict=True)], 0)


def rows_of(runs: Sequence[Run]) -> Iterator[Row]:
    """A row for each name, and another where decisions were chosen; without metrics yet."""
    for name in dict.fromkeys(run.name for run in runs):
        own = sorted((run for run in runs if run.name == name), key=lambda run: run.seed)
        yield Row(name, tuple(own))
        if decided := [run for run in own if run.decision is not None]:
            yield Row(name + BY_DECISION, tuple(decided), decided=True)
