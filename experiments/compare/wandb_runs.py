"""A W&B project as a source of runs: their files, which the server keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb

from callbacks.errors import RunError, reason
from callbacks.recording.results import KEPT
from experiments.compare.runs import Run, one_each, read_run

OWN = tuple(f"/{name}" for name in KEPT)  # in <name>/seed<n>; wandb has a config.yaml of its own


def read_project(project: str, last: bool = False) -> tuple[list[Run], list[str]]:
    """The tested runs of a project, and a sentence for each run that cannot be compared.

    Args:
        project: ``entity/name``.
        last: Whether to read the results of the last epoch instead of those of the best.

    Raises:
        RunError: The server does not answer, or has no such project or no tested run.
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
            f"W&B gives no runs of {project} ({reason(error)}): see `wandb login`."
        ) from None
    if not runs:
        said = " ".join(left_out)
        raise RunError(f"There is no tested run in {project}: `make sync` sends yours. {said}")
    return one_each(runs), left_out


def _downloaded(where: str, remote: Any, last: bool) -> Run:
    with TemporaryDirectory() as temporary:
        for file in remote.files():
            if file.name.endswith(OWN):
                file.download(temporary).close()
        folder = next(Path(temporary).glob("*/seed*"), None)
        if folder is None:
            raise RunError(f"{where} has no results: evaluate it, and `make sync`.")
        try:
            run = read_run(folder, last)
        except RunError as error:
            raise RunError(str(error).replace(str(folder), where)) from None
    return replace(run, source=where, folder=None)
