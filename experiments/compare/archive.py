"""Runs of a study in a CSV file, which outlives their folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from callbacks.atomic_files import write_table
from callbacks.errors import RunError, reason
from callbacks.run_folder import RunFolder, read_csv
from experiments.compare.intervals import Array
from experiments.compare.resources import resources
from experiments.compare.rows import BY_DECISION, Row
from experiments.compare.runs import TestedRun, about_classes, read_run

KEY = ["row", "seed", "checkpoint"]
BEST, LAST = "best", "last"
# Metrics that need probabilities, of which the archive keeps only the classes decided for.
RECORDED = (
    "macro_auroc", "ece", "average_precision", "brier", "nll", "classwise_ece", "aurc",
)  # fmt: skip
COLUMNS = [
    *KEY, "epoch", "commit", "split", "synthetic", "classes", "parameters", "hours",
    *RECORDED, "validation", "decisions",
]  # fmt: skip
IMAGE_COLUMNS = ["image_id", "lesion_id", "dx"]


class Archive:
    """Evaluated runs of a study, as a CSV file with one line per run and checkpoint.

    ``decisions`` holds the class of each test image as a digit, its position in ``classes``, in the
    order of ``test_<split>.csv`` beside the file. All metrics of decisions, with their intervals,
    can be computed from these two files. There can be at most ten classes.

    Args:
        path: The CSV file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = pd.DataFrame(columns=COLUMNS)
        if path.exists():
            types = {"decisions": "str", "commit": "str"}
            kept = _read(path, [*KEY, "decisions", "classes"], types)
            self.table = kept.reindex(columns=COLUMNS)  # older files lack the newer metrics

    def add(self, runs: Iterable[tuple[str, Path]]) -> int:
        """Add the runs of rows, each with its folder; a run that is there already is replaced.

        Returns:
            Number of runs that were evaluated, and so added.

        Raises:
            RunError: A run has other test images than those that the archive has for its split.
        """
        evaluated = [
            (row, folder) for row, folder in runs if RunFolder(folder).results_file().exists()
        ]
        records = [record for row, folder in evaluated for record in self._records(row, folder)]
        if records:
            parts = [part for part in (self.table, pd.DataFrame(records)) if len(part)]
            merged = pd.concat(parts).drop_duplicates(KEY, keep="last")
            self.table = merged.sort_values(KEY, ignore_index=True).reindex(columns=COLUMNS)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_table(self.path, self.table)
        return len(evaluated)

    def rows(self, order: Iterable[str], checkpoint: str = BEST) -> Iterator[Row]:
        """Rows of a comparison, and for runs with a decision rule a second one of its classes.

        Args:
            order: Names of the rows.
            checkpoint: ``best`` or ``last``.
        """
        for name in order:
            mine = self.table[self.table["row"] == name]
            images = {split: self.images(split) for split in mine["split"].unique()}
            for kind, suffix in ((checkpoint, ""), (checkpoint + BY_DECISION, BY_DECISION)):
                lines = mine[mine["checkpoint"] == kind].sort_values("seed")
                if len(lines):
                    runs = tuple(
                        self._run(name, line, images[line["split"]])
                        for line in lines.to_dict("records")
                    )
                    yield Row(name + suffix, runs, decided=True)

    def images(self, split: str) -> pd.DataFrame:
        """Test images of a split, and how many images of each one's class the data set has."""
        return _read(self._images_file(split), IMAGE_COLUMNS)

    def _images_file(self, split: str) -> Path:
        return self.path.with_name(f"test_{split}.csv")

    def _records(self, row: str, folder: Path) -> Iterator[dict[str, object]]:
        for checkpoint, last in ((BEST, False), (LAST, True)):
            if RunFolder(folder).results_file(last).exists():
                run = read_run(folder, last)
                self._keep_images(run)
                record = _record(run, folder, last) | {"row": row, "checkpoint": checkpoint}
                yield record | {"decisions": _digits(run.probability.argmax(1))}
                if run.decision is not None:
                    unknown = dict.fromkeys(RECORDED, np.nan)  # a decision has no probabilities
                    rule = {"checkpoint": checkpoint + BY_DECISION}
                    yield record | unknown | rule | {"decisions": _digits(run.decision)}

    def _keep_images(self, run: TestedRun) -> None:
        file = self._images_file(run.split)
        images = run.predictions[IMAGE_COLUMNS]
        if run.frequency is not None:
            counts = dict(zip(run.classes, run.frequency.tolist(), strict=True))
            images = images.assign(class_images=images["dx"].map(counts))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_table(file, images)
        elif self.images(run.split)["image_id"].tolist() != images["image_id"].tolist():
            raise RunError(f"{run.source} has other test images than {file}: evaluate it again.")

    def _run(self, name: str, line: Mapping[Any, Any], images: pd.DataFrame) -> TestedRun:
        counts = images.drop_duplicates("dx").set_index("dx").get("class_images")
        classes = tuple(line["classes"].split())
        return TestedRun(
            name=name,
            seed=line["seed"],
            source=f"{self.path} ({name}, seed {line['seed']})",
            classes=classes,
            split=line["split"],
            synthetic=bool(line["synthetic"]),
            parameters=line["parameters"],
            metrics={metric: line[metric] for metric in (*RECORDED, "hours")},
            remarks=(),
            predictions=images.assign(decision=[classes[int(c)] for c in line["decisions"]]),
            history=pd.DataFrame(),
            config={},
            frequency=None if counts is None else counts.loc[list(classes)].to_numpy(),
            **about_classes(classes, {}),
        )


def _read(path: Path, columns: list[str], types: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A table of an archive.

    Raises:
        RunError: It cannot be read, or a value is missing.
    """
    try:
        table = read_csv(path, types)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        needed = [name for name in columns if name != "lesion_id"]
        if table[needed].isna().any(axis=None):
            raise ValueError(f"it lacks values of {', '.join(needed)}")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({reason(error)}): restore it, such as with git checkout."
        ) from None
    return table


def _record(run: TestedRun, folder: Path, last: bool) -> dict[str, object]:
    results = RunFolder(folder).results(last)
    validated = run.history.get("val/balanced_accuracy", pd.Series(dtype=float)).dropna()
    return {
        "seed": run.seed,
        "epoch": (results.get("checkpoint") or {}).get("epoch"),
        "commit": results.get("commit"),
        "split": run.split,
        "synthetic": run.synthetic,
        "classes": " ".join(run.classes),
        "parameters": run.parameters,
        "hours": resources((run,)).hours,
        **{name: run.metrics.get(name, np.nan) for name in RECORDED},
        "validation": " ".join(f"{value:.3f}" for value in validated),
    }


def _digits(classes: Array) -> str:
    if classes.max() > 9:
        raise RunError("An archive keeps one digit per image: compare runs of up to ten classes.")
    return "".join(map(str, classes))
