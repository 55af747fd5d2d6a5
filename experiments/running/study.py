"""Studies, many runs under one protocol: ``python -m experiments study FILE [--jobs N]``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import yaml

from callbacks.atomic_files import write_text
from callbacks.errors import RunError
from callbacks.run_folder import RunFolder
from experiments.command_line.parser import CommandParser
from experiments.recipes import find, read_settings
from experiments.running.processes import execute

STUDIES = Path(__file__).parents[1] / "studies"
RECORD = "study.txt"
# Options that do not change the result; ignored when deciding whether a run is the same.
IRRELEVANT = ("data.root", "data.cache_dir", "data.num_workers", "data.on_device",
             "trainer.accelerator", "trainer.devices",
             "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar")  # fmt: skip
Options = Mapping[str, Any]


@dataclass(frozen=True)
class StudyRun:
    """One row of a study, trained with one seed in ``runs/<study>-<row>/seed<n>/``.

    Args:
        study: Name of the study's file without its suffix.
        row: Name of the row.
        experiment: Name of the recipe.
        seed: Seed of the weights and the order of images. The split has a seed of its own.
        options: Command-line options.
        after: Row to finish first: this run starts from its run with the same seed.
        decide: Decision rule to choose on the validation split before testing.
        sets: Method of prediction sets to choose on the validation split before testing.
        last: Whether to test the last epoch as well as the best.
    """

    study: str
    row: str
    experiment: str
    seed: int
    options: tuple[str, ...] = ()
    after: str | None = None
    decide: str | None = None
    sets: str | None = None
    last: bool = False

    @property
    def name(self) -> str:
        return f"{self.study}-{self.row}"

    @property
    def folder(self) -> Path:
        return RunFolder.of(self.name, self.seed).path

    @property
    def record(self) -> str:
        """Recipe and options of this run and of the runs it starts from, as text."""
        flags = [flag.removeprefix("--").partition("=") for flag in self.options]
        made = {key: value for key, _, value in flags if not key.startswith(IRRELEVANT)}
        sources = [Path(value, RECORD) for value in made.values() if value]
        lines = [self.experiment, f"decide {self.decide}", *map("=".join, made.items())]
        if self.sets:  # records of rows without them are as before they existed
            lines.insert(2, f"sets {self.sets}")
        # Not Path.is_file, which fails at values that are too long for a file name.
        records = (file.read_text("utf-8") for file in sources if os.path.isfile(file))
        return "\n".join([*lines, *records, ""])

    def commands(self) -> Iterator[list[str]]:
        """The arguments of the commands that train, decide and test."""
        config = str(find(self.experiment))
        head = ["--name", self.name, "--seed_everything", str(self.seed)]
        yield ["fit", "--config", config, *head, *self.options]
        trained = ["--config", str(RunFolder(self.folder).config), "--ckpt_path"]
        trained += [str(RunFolder(self.folder).best)]
        if self.decide or self.sets:
            chooser = ["--trainer.callbacks+=callbacks.ChooseDecision"]
            chooser += [f"--trainer.callbacks.rule={self.decide}"] if self.decide else []
            chooser += [f"--trainer.callbacks.sets={self.sets}"] if self.sets else []
            yield ["validate", *trained, *chooser]
        if self.last:
            yield ["test", *trained[:-1], str(RunFolder(self.folder).last)]
        yield ["test", *trained]

    def complete(self, threads: int | None) -> bool:
        """Train and evaluate the run, resuming where it stopped; return whether it is complete.

        Recipe and options are recorded in the run folder, so that a run with other options is not
        mistaken for this one.
        """
        record = self.folder / RECORD
        if record.exists() and record.read_text("utf-8") != self.record:
            print(
                f"{self.folder} was trained with other options ({record}). Rename the folder to "
                "keep that run, then start the study again."
            )
            return False
        if RunFolder(self.folder).results_file().exists():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(record, self.record)
        start, log = perf_counter(), self.folder / "log.txt"
        done = all(execute(command, log, threads) == 0 for command in self.commands())
        outcome = (
            f"{perf_counter() - start:.0f} s" if done else f"failed: {_last_line(log)} ({log})"
        )
        print(f"{self.name} seed {self.seed}: {outcome}", flush=True)
        return done


@dataclass(frozen=True)
class Study:
    """The runs of a file in ``experiments/studies``, row by row, each with every seed."""

    runs: tuple[StudyRun, ...]

    @classmethod
    def read(cls, path: Path, more: Sequence[str] = ()) -> Self:
        """Read a study file: ``seeds``, ``options`` of all runs, and ``rows`` with their options.

        ``{seed}`` in the value of an option is replaced by the seed; null removes an option of all
        runs from a row. Five keys of a row are arguments of :class:`StudyRun` instead of options:
        ``experiment`` (default: the row's name), ``after``, ``decide``, ``sets`` and ``last``
        (default: that of the file).

        Raises:
            RunError: The file is not that of a study.
        """
        record = read_settings(path)
        _refuse_other_than_a_study(path, record)
        names, last = list(record["rows"]), record.get("last", False)
        for i, (name, row) in enumerate(record["rows"].items()):
            if (first := (row or {}).get("after", name)) not in names[: i + 1]:
                raise RunError(
                    f"In {path}, {name} starts from {first}, which is not above it: add {first} or "
                    f"move {name} below it."
                )
        runs = (
            _run(path.stem, name, {"last": last} | (row or {}), seed, record.get("options") or {})
            for name, row in record["rows"].items()
            for seed in record["seeds"]
        )
        return cls(tuple(replace(run, options=(*run.options, *more)) for run in runs))

    def only(self, rows: Sequence[str]) -> Self:
        """The runs of the given rows and of the rows they start from.

        Raises:
            RunError: The study has no such row.
        """
        known = {run.row: run.after for run in self.runs}
        wanted = set(rows)
        if missing := wanted - known.keys():
            raise RunError(f"No row {', '.join(sorted(missing))}: choose from {', '.join(known)}.")
        while more := {known[row] for row in wanted if known[row]} - wanted:
            wanted |= {row for row in more if row}
        return type(self)(tuple(run for run in self.runs if run.row in wanted))

    def complete(self, jobs: int) -> list[StudyRun]:
        """Complete all runs, ``jobs`` at a time; return those that failed."""
        threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
        futures: dict[tuple[str, int], Future[bool]] = {}

        def complete(run: StudyRun) -> bool:
            # The run it starts from was submitted earlier, so this wait cannot deadlock.
            if run.after and not futures[run.after, run.seed].result():
                print(f"{run.name} seed {run.seed}: not started, because {run.after} failed")
                return False
            return run.complete(threads)

        with ThreadPoolExecutor(jobs) as pool:
            for run in self.runs:
                futures[run.row, run.seed] = pool.submit(complete, run)
        return [run for run in self.runs if not futures[run.row, run.seed].result()]


def _refuse_other_than_a_study(path: Path, record: Options) -> None:
    """Refuse a file in which a part is missing or malformed, or a row's recipe does not exist."""
    rows, seeds = record.get("rows"), record.get("seeds")
    if not isinstance(rows, dict) or not rows:
        raise RunError(f"{path} has no rows: write `rows:`, and below it a line `name: {{}}` each.")
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise RunError(f"{path} has no list of seeds: write `seeds: [0, 1, 2]`.")
    parts = {"options": record.get("options"), **{f"rows.{row}": rows[row] for row in rows}}
    for place, part in parts.items():
        if not isinstance(part, dict | None):
            raise RunError(f"{path}: {place} is {part!r}: write lines `option: value` below it.")
    for name, row in rows.items():
        try:
            find(str((row or {}).get("experiment", name)))
        except RunError as error:
            raise RunError(f"{path}: in rows.{name}: {error}") from None


def _run(study: str, name: str, row: Options, seed: int, shared: Options) -> StudyRun:
    known = {key: row[key] for key in ("after", "decide", "sets", "last") if key in row}
    row_options = {key: row[key] for key in row if key not in ("experiment", *known)}
    options = {key: value for key, value in {**shared, **row_options}.items() if value is not None}
    flags = tuple(f"--{key}={_flag(value, seed)}" for key, value in options.items())
    return StudyRun(study, name, row.get("experiment", name), seed, flags, **known)


def _flag(value: object, seed: int) -> str:
    if isinstance(value, str):
        return value.replace("{seed}", str(seed))
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


def main() -> None:
    parser = CommandParser(
        "Train and evaluate every row of a study with every seed. Finished runs are kept, "
        "interrupted ones resume. Options with a dot are passed to every run."
    )
    parser.add_argument("study", help="name of a file in experiments/studies, or a path")
    parser.add_argument(
        "--rows", default="", help="rows to run, separated by spaces or commas (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores")
    options, more = parser.parse()
    try:
        study = Study.read(find_study(options.study), more)
        study = study.only(re.split(r"[\s,]+", options.rows.strip())) if options.rows else study
    except RunError as error:
        sys.exit(f"error: {error}")
    if failed := study.complete(options.jobs):
        sys.exit(f"error: {len(failed)} runs are unfinished: run the same command to resume them.")


def find_study(name: str) -> Path:
    """The file of a study, by its name or path.

    Raises:
        RunError: There is no such file; the studies are listed.
    """
    known = {path.stem: path for path in sorted(STUDIES.glob("*.yaml"))}
    path = known.get(name, Path(name))
    if not path.is_file():
        raise RunError(f"There is no study {name}: choose from {', '.join(known)}.")
    return path
