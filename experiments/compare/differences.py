"""Differences in balanced accuracy between rows and a baseline, paired by seed and by lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from experiments.compare import intervals
from experiments.compare.intervals import Array
from experiments.compare.rows import Difference, Row


def with_differences(
    rows: Sequence[Row], baseline: str, resampled: Mapping[str, Array]
) -> list[Row]:
    """The rows with their differences from the baseline.

    Args:
        rows: Rows with metrics.
        baseline: Name of one of the rows.
        resampled: Balanced accuracy of each row by name, for each seed and resample (S, R).
    """
    base = next(row for row in rows if row.name == baseline)
    differences = {
        row.name: difference(row, base, resampled[row.name], resampled[baseline])
        for row in rows
        if row is not base
    }
    by_bootstrap = intervals.holm([d.p for d in differences.values()])
    by_mcnemar = intervals.holm([d.p_mcnemar for d in differences.values()])
    for (name, unadjusted), p, q in zip(differences.items(), by_bootstrap, by_mcnemar, strict=True):
        differences[name] = replace(unadjusted, p_holm=p, p_mcnemar_holm=q)
    return [replace(row, difference=differences.get(row.name)) for row in rows]


def difference(row: Row, base: Row, row_resampled: Array, base_resampled: Array) -> Difference:
    """Difference between two rows over the seeds that they share; over all if they share none.

    Args:
        row: The row.
        base: The baseline.
        row_resampled: Balanced accuracy of the row for each seed and resample (S, R).
        base_resampled: Balanced accuracy of the baseline, likewise.
    """
    shared = tuple(sorted({*row.seeds} & {*base.seeds}))
    kept = [_indices(one, shared) for one in (row, base)]
    row, base = (one.of_runs(at) for one, at in zip((row, base), kept, strict=True))
    resampled = row_resampled[kept[0]].mean(0) - base_resampled[kept[1]].mean(0)
    values = [_balanced_accuracy(one) for one in (row, base)]
    better, worse, p = intervals.mcnemar(row.right(), base.right(), base.runs[0].lesion)
    return Difference(
        mean=float(values[0].mean() - values[1].mean()),
        seeds=intervals.over_seeds(values[0] - values[1]) if shared else None,
        lesions=intervals.percentiles(resampled),
        p=intervals.bootstrap_p(resampled),
        better=better,
        worse=worse,
        p_mcnemar=p,
        shared_seeds=shared,
    )


def _indices(row: Row, seeds: Sequence[int]) -> list[int]:
    """Positions of the runs with the given seeds; of all runs if there are none."""
    return [i for i, seed in enumerate(row.seeds) if seed in seeds or not seeds]


def _balanced_accuracy(row: Row) -> Array:
    """Balanced accuracy of each seed (S,)."""
    ones = np.ones((1, len(row.runs[0].label)))
    return row.scores(ones)["balanced_accuracy"][:, 0]
