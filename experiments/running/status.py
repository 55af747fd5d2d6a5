"""List of all runs and their progress: ``python -m experiments status``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from callbacks.console import print_table
from callbacks.errors import RunError
from callbacks.recording.metrics_file import best_values
from callbacks.run_folder import RunFolder
from callbacks.safety.progress import epochs_done, finished, read_progress
from experiments.running.resume import resume_from
from experiments.running.slurm import Queued, queued

Queue = Mapping[tuple[str, str], Queued]


def status() -> pd.DataFrame:
    """A row per run in ``runs/``: epochs, best validation score, and state or Slurm job."""
    try:
        queue = queued()
    except RunError:  # without Slurm, list the runs all the same
        queue = {}
    folders = sorted(folder for folder in Path("runs").glob("*/seed*") if folder.is_dir())
    return pd.DataFrame([_row(folder, queue) for folder in folders])


def _row(folder: Path, queue: Queue) -> dict[str, object]:
    name, seed = folder.parent.name, folder.name.removeprefix("seed")
    resumable = resume_from(folder, read=read_progress)
    max_epochs, max_steps = _limits(RunFolder(folder))
    done = epochs_done(resumable[1]) if resumable else 0
    best = best_values(RunFolder(folder).metrics_file).get("val/balanced_accuracy", float("nan"))
    if (name, seed) in queue:
        job, state = queue[name, seed]
        state = f"{state.lower()}, job {job}"
    elif RunFolder(folder).results_file().exists():
        state = "evaluated"
    else:
        over = resumable is not None and finished(resumable[1], max_epochs, max_steps)
        state = "finished" if over else "not finished"
    epochs = f"{done}/{'?' if max_epochs is None else max_epochs}"
    return {"run": name, "seed": seed, "epochs": epochs, "best val": best, "state": state}


def _limits(folder: RunFolder) -> tuple[int | None, int | None]:
    """``max_epochs`` and ``max_steps`` of a run; None for a limit that is not set."""
    try:
        trainer = folder.settings().get("trainer") or {}
    except RunError:  # of a run that has not started, or whose record is damaged
        return None, None
    return trainer.get("max_epochs"), trainer.get("max_steps")


def main() -> None:
    table = status()
    if table.empty:
        print("There are no runs in runs/. Start one with `make train EXP=...`.")
    else:
        print_table(table, "Runs", summary=False)
