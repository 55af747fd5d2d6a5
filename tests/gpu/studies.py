"""Studies at the size of a GPU, seed by seed, so that an interrupted study has whole seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from callbacks.atomic_files import write_text
from callbacks.run_folder import RunFolder
from experiments.compare.archive import Archive
from experiments.compare.results import comparison, markdown
from experiments.running.study import Study, StudyRun, find_study
from lightning_modules.networks.weights import PACKAGES

RESULTS = "results"


def write_study(
    name: str, folder: Path, seeds: int, weights: str | None, size: int, rows: Sequence[str] = ()
) -> Path:
    """Write a study into a folder, for images of another size and with weights from a file.

    Args:
        name: Name of the study.
        folder: Folder of the new file, which has the study's name.
        seeds: Number of seeds, from 0 on.
        weights: File in place of installed packages of weights; None keeps the packages.
        size: Height and width of the images in pixels.
        rows: Rows to keep; all if none is named.

    Returns:
        The new file.
    """
    record = yaml.safe_load(find_study(name).read_text("utf-8"))
    chosen = {row: record["rows"][row] for row in rows or record["rows"]}
    record["seeds"] = list(range(seeds))
    record["options"] = _from_file(record["options"], weights) | {"data.size": size}
    record["rows"] = {row: _from_file(options, weights) for row, options in chosen.items()}
    path = folder / f"{name}.yaml"
    write_text(path, yaml.dump(record, Dumper=_WithoutAliases, sort_keys=False))
    return path


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _from_file(options: Mapping[str, Any] | None, weights: str | None) -> dict[str, Any]:
    return {
        key: weights if weights and key.endswith(".weights") and value in PACKAGES else value
        for key, value in (options or {}).items()
    }


class Progress:
    """Finished runs of a study in a folder.

    Args:
        study: File of the study, in the folder whose ``runs/`` its runs are in.
    """

    def __init__(self, study: Path) -> None:
        self.study = study
        self.runs = Study.read(study).runs

    def finished(self, run: StudyRun) -> bool:
        return RunFolder(self.folder(run)).results_file().exists()

    def folder(self, run: StudyRun) -> Path:
        return self.study.parent / run.folder

    def whole_seeds(self) -> list[int]:
        """Seeds with which every row is finished."""
        seeds = sorted({run.seed for run in self.runs})
        unfinished = {run.seed for run in self.runs if not self.finished(run)}
        return [seed for seed in seeds if seed not in unfinished]

    def keep(self) -> str:
        """Add the finished runs to ``results/STUDY.csv``.

        Returns:
            What is finished, and the table of whole seeds, in Markdown.
        """
        archive = Archive(self.study.parent / RESULTS / f"{self.study.stem}.csv")
        archive.add((run.row, self.folder(run)) for run in self.runs)
        seeds = self.whole_seeds()
        done = sum(map(self.finished, self.runs))
        text = f"{done} of {len(self.runs)} runs are finished; whole seeds: "
        if not seeds:
            return f"{text}none."
        archive.table = archive.table[archive.table["seed"].isin(seeds)]
        record = yaml.safe_load(self.study.read_text("utf-8"))
        rows, baseline = list(record["rows"]), record.get("baseline")
        table = markdown(archive, comparison(archive, rows, baseline))
        return f"{text}{', '.join(map(str, seeds))}.\n\n{table}"
