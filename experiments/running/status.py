"""What runs and what is left: ``python -m experiments status``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from callbacks.console import print_table
from callbacks.errors import RunError
from callbacks.recording.history import best_values
from callbacks.run_folder import RunFolder
from callbacks.safety.checkpoint_io import epochs_done, finished
from experiments.running.resume import resume_from
from experiments.running.slurm import Queued, queued

Queue = Mapping[tuple[str, str], Queued]


def status() -> pd.DataFrame:
    """A row per run in ``runs/``: how far it is, how good on validation, and who has it."""
    try:
        queue = queued()
    except RunError:  # without Slurm there is still something to tell
        queue = {}
    folders = sorted(folder for folder in Path("runs").glob("*/seed*") if folder.is_dir())
    return pd.DataFrame([_row(folder, queue) for folder in folders])


def _row(folder: Path, queue: Queue) -> dict[str, Any]:
    name, seed = folder.parent.name, folder.name.removeprefix("seed")
    found, (wanted, steps) = resume_from(folder), _limits(RunFolder(folder))
    done = epochs_done(found[1]) if found else 0
    best = best_values(RunFolder(folder).metrics_file).get("val/balanced_accuracy", float("nan"))
    if (name, seed) in queue:
        job, state = queue[name, seed]
        state = f"{state.lower()}, job {job}"
    elif RunFolder(folder).results_file().exists():
        state = "evaluated"
    else:
        over = found is not None and finished(found[1], wanted, steps)
        state = "finished" if over else "not finished"
    epochs = f"{done}/{'?' if wanted is None else wanted}"
    return {"run": name, "seed": seed, "epochs": epochs, "best val": best, "state": state}


def _limits(folder: RunFolder) -> tuple[int | None, int | None]:
    """Epochs and steps that a run is to have; None where there is no such limit."""
    try:
        trainer = folder.settings().get("trainer") or {}
    except RunError:  # of a run that has not started, or whose record is damaged
        return None, None
    return trainer.get("max_epochs"), trainer.get("max_steps")


def main() -> None:
    table = status()
    if table.empty:
        print("There are no runs in runs/.")
    else:
        print_table(table, "Runs", summary=False)
