"""Compare runs in a table and a page: ``python -m experiments compare [RUNS...] [options]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from callbacks.atomic_files import write_table, write_text
from callbacks.errors import RunError
from experiments.compare import other_tables, page, table
from experiments.compare.comparison import Comparison, compare
from experiments.compare.compression import with_compression
from experiments.compare.external import with_external
from experiments.compare.runs import TestedRun, read_runs


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="experiments.compare", description=__doc__)
    result.add_argument(
        "runs", nargs="*", default=["runs/*"], help="run folders, or glob patterns of them"
    )
    result.add_argument(
        "--project", help="W&B project, entity/name, to read runs from instead of folders"
    )
    result.add_argument("--baseline", help="name of the row that all others are compared with")
    result.add_argument(
        "--last", action="store_true", help="compare the last epochs instead of the best ones"
    )
    result.add_argument(
        "--resamples",
        type=int,
        default=2000,
        help="number of bootstrap resamples of the test lesions",
    )
    result.add_argument(
        "--positive", help="class whose net benefit is compared; melanoma by default"
    )
    result.add_argument("--out", type=Path, default=Path("compare"), help="folder for the files")
    return result


def write(comparison: Comparison, folder: Path) -> None:
    """Write the tables, ``table.md`` and ``index.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    tests = other_tables.subgroups(comparison)
    write_table(folder / "subgroups.csv", other_tables.subgroup_numbers(tests))
    write_table(folder / "gaps.csv", other_tables.gap_numbers(tests))
    write_table(folder / "external.csv", other_tables.external_numbers(comparison))
    write_table(folder / "table.csv", table.everything(comparison))
    write_table(folder / "curves.csv", table.curves(comparison))
    write_text(folder / "table.md", table.markdown(comparison) + other_tables.markdown(comparison))
    write_text(folder / "index.html", page.render(comparison, tests))


def _read(
    project: str | None, patterns: list[str], last: bool
) -> tuple[list[TestedRun], list[str]]:
    """The runs of a project, or else those of the patterns."""
    if project is None:
        return read_runs(patterns, last)
    from experiments.compare.wandb_runs import read_project  # imports wandb and torch

    return read_project(project, last)


def main() -> None:
    options = parser().parse_args()
    if options.resamples < 0:
        sys.exit(f"error: --resamples={options.resamples}: set it to 0 or more.")
    try:
        last = options.last
        runs, left_out = _read(options.project, options.runs, last)
        notes = ["These are the last epochs, not those that validation selected."] if last else []
        notes += [f"Left out: {sentence}" for sentence in left_out]
        comparison = with_external(
            with_compression(
                compare(runs, options.resamples, options.baseline, notes, options.positive)
            )
        )
    except RunError as error:
        sys.exit(f"error: {error}")
    table.show(comparison)
    other_tables.show(comparison)
    write(comparison, options.out)
    print(f"Wrote table.md, five CSV files and the page index.html to {options.out}/.")


if __name__ == "__main__":
    main()
