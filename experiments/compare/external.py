"""Runs on other data sets: their scores beside those on their own test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from callbacks.errors import RunError, reason
from callbacks.run_folder import RunFolder
from experiments.compare.comparison import Comparison, compare_rows, estimate
from experiments.compare.intervals import Array
from experiments.compare.rows import Estimate, Row
from experiments.compare.runs import TestedRun, read_predictions
from experiments.compare.subgroups import recalls


@dataclass(frozen=True)
class Change:
    """Balanced accuracy on another data set, and on the own test split over the same classes.

    Args:
        own: On the own test split, over the classes that occur in the other data set.
        other: On the other data set, over its classes.
        difference: ``other`` minus ``own``. Lesions of both data sets are resampled, each by
            themselves.
    """

    own: Estimate
    other: Estimate
    difference: Estimate


@dataclass(frozen=True)
class ExternalTest:
    """The runs of a comparison that were tested on another data set.

    Args:
        name: Name of the data set.
        comparison: Rows of these runs with their scores there; best first.
        changes: Change of each row by name.
        facts: Facts that the runs recorded about the test, such as numbers of images left out.
    """

    name: str
    comparison: Comparison
    changes: Mapping[str, Change]
    facts: Mapping[str, Any]

    @property
    def group(self) -> str:
        """The unit of resampling: ``lesion``, ``patient`` or ``image``."""
        return self.comparison.group

    @property
    def first(self) -> TestedRun:
        """A run, whose test images are those of all."""
        return self.comparison.rows[0].runs[0]

    @property
    def legend(self) -> str:
        """Sentences about the test: its images, its intervals, and what was left out."""
        groups = self.first.lesion.max() + 1
        of = f" of {groups} {self.group}s" if self.group != "image" else ""
        resampled = f"resamples of the {self.group}s"
        if self.group == "image":
            resampled += ", since the data set names neither lesions nor patients"
        text = (
            f"{self.name}: {len(self.first.label)} images{of}. In brackets: 95 % bootstrap "
            f"interval over {len(self.comparison.weight)} {resampled}."
        )
        return " ".join([text, *self.facts["sentences"]])


def read_external(run: TestedRun, name: str) -> tuple[TestedRun, dict[str, Any]]:
    """A run as tested on another data set, and what it recorded about this test.

    Args:
        run: The run, as read from its folder.
        name: Name of the data set.

    Raises:
        RunError: The files of the test are missing or damaged.
    """
    folder = RunFolder(run.folder or run.source).on(name)
    try:
        results = folder.results()
        _refuse_outdated(run, folder, results)
        tested = replace(
            run,
            source=str(folder.path),
            split=results["split"],
            synthetic=results["synthetic"],
            metrics={k: np.nan if v is None else v for k, v in results["metrics"].items()},
            predictions=read_predictions(folder.predictions_file(), results),
            frequency=None,  # of the own data set
            fidelity=None,
            folder=None,
            group=results["on"]["group"],
        )
        return tested, results["on"]
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise RunError(
            f"{folder.path} is incomplete ({reason(error)}): test the run on {name} again."
        ) from None


def _refuse_outdated(run: TestedRun, folder: RunFolder, results: Mapping[str, Any]) -> None:
    """Refuse a test of other weights than those of the own test, such as before more training."""
    both = [RunFolder(run.folder or run.source).results(), results]
    steps = [(record.get("checkpoint") or {}).get("step") for record in both]
    if None not in steps and steps[0] != steps[1]:
        raise RunError(
            f"{folder.path} is of the checkpoint of step {steps[1]}, the own test of step "
            f"{steps[0]}: test the run again on both."
        )


def with_external(comparison: Comparison) -> Comparison:
    """The comparison with the tests of its runs on other data sets, if there are any."""
    rows = [row for row in comparison.rows if not row.decided]
    folders = [run.folder for row in rows for run in row.runs if run.folder]
    names = sorted({name for folder in folders for name in RunFolder(folder).tested_on})
    tests, notes = [], []
    for name in names:
        try:
            tests.append(_test(name, comparison))
        except RunError as error:
            notes.append(f"Left out: {error}")
    return replace(comparison, external=tuple(tests), notes=(*comparison.notes, *notes))


def _test(name: str, comparison: Comparison) -> ExternalTest:
    resamples = len(comparison.weight)
    pairs = [(row, other) for row in comparison.rows if (other := _row(row, name))]
    tested = compare_rows([there for _, there in pairs], resamples, None, (), comparison.positive)
    scored = {row.name: row for row in tested.rows}
    changes = {
        row.name: change(row, scored[row.name], comparison.weight, tested.weight)
        for row, _ in pairs
    }
    facts = read_external(_own(pairs[0]), name)[1]
    return ExternalTest(name, tested, changes, facts)


def _own(pair: tuple[Row, Row]) -> TestedRun:
    """The first run of a row that was tested elsewhere too."""
    row, other = pair
    return next(run for run in row.runs if run.seed == other.runs[0].seed)


def _row(row: Row, name: str) -> Row | None:
    """The runs of a row that were tested on a data set, as tested there."""
    tested = [
        read_external(run, name)[0]
        for run in row.runs
        if run.folder and name in RunFolder(run.folder).tested_on
    ]
    kept = [run for run in tested if not row.decided or run.decision is not None]
    return Row(row.name, tuple(kept), row.decided) if kept else None


def change(row: Row, other: Row, weight: Array, other_weight: Array) -> Change:
    """Change of balanced accuracy from the own test split to another data set.

    Args:
        row: Row on the own test split.
        other: The same row on the other data set, perhaps with fewer seeds.
        weight: Resamples of the own test images (R, N).
        other_weight: Resamples of the other images (R, M).
    """
    row = row.of_runs([i for i, run in enumerate(row.runs) if run.seed in other.seeds])
    occurs = ~np.isnan(recalls(other, _none(other_weight))[0])
    values = [_balanced(row, weight, occurs), _balanced(other, other_weight, occurs)]
    (own, own_resampled), (there, there_resampled) = values
    return Change(
        estimate(own, own_resampled),
        estimate(there, there_resampled),
        estimate(there - own, there_resampled - own_resampled),
    )


def _balanced(row: Row, weight: Array, occurs: Array) -> tuple[Array, Array]:
    """Mean recall of some classes for each seed (S,), and its mean over the seeds (R,)."""
    per_seed = [recalls(row.of_runs([i]), _none(weight)) for i in range(len(row.runs))]
    values = np.array([found[0, occurs].mean() for found in per_seed])
    return values, recalls(row, weight)[1:, occurs].mean(1)


def _none(weight: Array) -> Array:
    """No resamples, and with them the precision of the images as they are."""
    return np.empty((0, weight.shape[1]))
