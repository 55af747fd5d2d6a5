"""Publish a study: ``python -m experiments results STUDY``."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from callbacks.atomic_files import write_text
from callbacks.console import NO_VALUE, decimals
from callbacks.errors import RunError
from experiments.command_line.parser import CommandParser
from experiments.compare import table
from experiments.compare.archive import BEST, LAST, RECORDED, Archive
from experiments.compare.comparison import Comparison, compare_rows, estimate
from experiments.compare.figure import figure
from experiments.compare.rows import Row
from experiments.recipes import read_settings
from experiments.running.study import Study, find_study

PAGE = Path("docs/results.md")
FOLDER = Path("docs/results")
RESAMPLES = 20_000
# Columns of the comparison's table that are not published.
LEFT_OUT = ["macro precision", "difference over seeds", "lesions better : worse",
            "p McNemar (Holm)"]  # fmt: skip


def publish(study: Path, page: Path = PAGE, folder: Path = FOLDER) -> str:
    """Add the finished runs of a study to its CSV file, draw them, and write a page's table.

    The table takes the place of what is between ``<!-- results: NAME -->`` and the next
    ``<!-- end -->`` of the page. Runs that were added earlier need not exist any more.

    Args:
        study: File of the study, whose ``baseline`` names the row to compare with, if any.
        page: Markdown page.
        folder: Folder of the CSV files.

    Returns:
        The table in Markdown.

    Raises:
        RunError: No run of the study was ever evaluated, or the page has no place for its table.
    """
    archive = Archive(folder / f"{study.stem}.csv")
    runs = Study.read(study).runs
    added = archive.add((run.row, run.folder) for run in runs)
    print(f"Added {added} runs to {archive.path}, which now has {len(archive.table)} results.")
    record = read_settings(study)
    rows, baseline = list(record["rows"]), record.get("baseline")
    best = comparison(archive, rows, baseline)
    last = None
    if any(archive.table["checkpoint"] == LAST):
        last = comparison(archive, rows, baseline, LAST)
    text = markdown(archive, best, last)
    write_text(archive.path.with_suffix(".svg"), figure(best))
    write_text(page, _filled(page, study.stem, text))
    return text


def markdown(archive: Archive, best: Comparison, last: Comparison | None = None) -> str:
    """The table of an archive in Markdown, with a line on what it is made of.

    Args:
        archive: Archive of the runs.
        best: Its rows, compared at the best epochs.
        last: Its rows, compared at the last epochs, if these were tested.
    """
    frame = table.compact(best).drop(columns=LEFT_OUT, errors="ignore")
    if last is not None:
        frame = _with_last(frame, last)
    frame["minutes"] = [decimals(60 * _hours(row), 1) for row in best.rows]
    alignment = ["---", *["---:"] * (frame.shape[1] - 1)]
    lines: list[list[str]] = [list(map(str, frame)), alignment, *frame.to_numpy().tolist()]
    body = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
    drawn = f"![Balanced accuracy with its interval over lesions](results/{archive.path.stem}.svg)"
    return "\n".join([_caption(archive, best), "", drawn, "", *body])


def comparison(
    archive: Archive, order: list[str], baseline: str | None, checkpoint: str = BEST
) -> Comparison:
    """The rows of an archive, compared at the best or at the last epochs.

    Raises:
        RunError: The archive has no results.
    """
    rows = list(archive.rows(order, checkpoint))
    if not rows:
        raise RunError(
            f"{archive.path} has no results: run `make study STUDY={archive.path.stem}`."
        )
    known = baseline if any(row.name == baseline for row in rows) else None
    compared = compare_rows(rows, RESAMPLES, known)
    return replace(compared, rows=tuple(map(_with_recorded, compared.rows)))


def _hours(row: Row) -> float:
    return float(np.mean([run.metrics["hours"] for run in row.runs]))


def _with_recorded(row: Row) -> Row:
    """The row with the metrics that its runs recorded."""
    values = {name: np.array([run.metrics[name] for run in row.runs], float) for name in RECORDED}
    known = {name: estimate(each) for name, each in values.items() if not np.isnan(each).any()}
    return replace(row, metrics=row.metrics | known)


def _with_last(frame: pd.DataFrame, last: Comparison) -> pd.DataFrame:
    columns = {"balanced accuracy [lesions]": "last epoch", "difference [lesions]": "difference"}
    other = table.compact(last).rename(columns=columns).set_index("name")
    added = other.reindex(columns=[c for c in columns.values() if c in other])
    renamed = added.rename(columns={"difference": "difference at the last epoch"})
    return frame.join(renamed, on="name").fillna(NO_VALUE)


def _caption(archive: Archive, best: Comparison) -> str:
    run, images = best.rows[0].runs[0], best.weight.shape[1]
    commits = archive.table.groupby("commit")["row"].unique()
    listed = "; ".join(
        _short(str(commit)) + (f" ({', '.join(rows)})" if len(commits) > 1 else "")
        for commit, rows in commits.items()
    )
    drawn = "SYNTHETIC DATA: these are no real lesions. " if best.synthetic else ""
    return (
        f"{drawn}{images} test images of {run.lesion.max() + 1} lesions, split `{run.split}`; "
        f"commit {listed}; [all runs as CSV](results/{archive.path.name}). Minutes are wall time "
        "of one training without validation, on a machine that may have had other work."
    )


def _short(commit: str) -> str:
    """The first digits of a commit, and whether files differed from it."""
    digits, dash, state = commit.partition("-")
    return f"{digits[:7]}{dash}{state}"


def _filled(page: Path, name: str, text: str) -> str:
    begin, end = f"<!-- results: {name} -->", "<!-- end -->"
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    whole = f"{begin}\n{text}\n{end}"
    filled, count = block.subn(lambda _: whole, page.read_text("utf-8"))
    if count != 1:
        raise RunError(f"{page} has no place for the table: add the lines {begin} and {end} to it.")
    return filled


def _cell(text: object) -> str:
    return str(text).replace("|", r"\|").replace("<", "&lt;")


def main() -> None:
    parser = CommandParser(
        "Add the finished runs of a study to docs/results/STUDY.csv, and write its table into "
        "docs/results.md. Earlier runs in the CSV file are kept."
    )
    parser.add_argument("study", help="name of a file in experiments/studies, or a path")
    options, _ = parser.parse()
    try:
        print(publish(find_study(options.study)))
    except RunError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
