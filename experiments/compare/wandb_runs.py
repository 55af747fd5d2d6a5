"""Read evaluated runs from a W&B project, which keeps their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb

from callbacks.errors import RunError, reason
from callbacks.recording.results import UPLOADED_FILES
from experiments.compare.runs import TestedRun, check_unique, read_run

# Files in <name>/seed<n>; wandb has a config.yaml of its own at the top.
UPLOADED_ENDINGS = tuple(f"/{name}" for name in UPLOADED_FILES)


def read_project(project: str, last: bool = False) -> tuple[list[TestedRun], list[str]]:
    """Download and read the evaluated runs of a project.

    Args:
        project: Entity and name of the project, ``entity/name``.
        last: Whether to read the results of the last epoch instead of those of the best.

    Returns:
        The runs, and a sentence for each run that could not be read.

    Raises:
        RunError: The server cannot be reached, or has no such project or no evaluated run.
    """
    runs, left_out = [], []
    try:
        for remote in wandb.Api(timeout=30).runs(project):
            where = f"{project}/{remote.id}"
            try:
                runs.append(_downloaded(where, remote, last))
            except RunError as error:
                left_out.append(str(error))
    except (wandb.Error, ValueError, OSError) as error:
        raise RunError(
            f"Runs of {project} could not be read from W&B ({reason(error)}): check the project's "
            "name and `wandb login`."
        ) from None
    if not runs:
        raise RunError(
            f"No evaluated run in {project}: upload yours with `make sync`. {' '.join(left_out)}"
        )
    return check_unique(runs), left_out


def _downloaded(where: str, remote: Any, last: bool) -> TestedRun:
    with TemporaryDirectory() as temporary:
        for file in remote.files():
            if file.name.endswith(UPLOADED_ENDINGS):
                file.download(temporary).close()
        folder = next(Path(temporary).glob("*/seed*"), None)
        if folder is None:
            raise RunError(f"{where} has no results: evaluate it and run `make sync`.")
        try:
            run = read_run(folder, last)
        except RunError as error:
            raise RunError(str(error).replace(str(folder), where)) from None
    return replace(run, source=where, folder=None)
