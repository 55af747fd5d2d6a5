"""Folders, names and W&B ids of runs.

A run is trained in ``runs/<name>/seed<seed>``. Later commands write to the folder of the checkpoint
they are given, so that a run which was renamed, moved or copied is identified by its folder, not by
the name in its ``config.yaml``.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path

from jsonargparse import Namespace

from callbacks.errors import RunError
from callbacks.run_folder import CONFIG, RunFolder

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LIGHTNING_KEYWORDS = ("best", "last", "hpc")  # for which a trainer searches its own checkpoints


def run_dir(name: str, seed: int, checkpoint: str | Path | None = None) -> str:
    """The run folder; the folder of ``checkpoint`` if one is given."""
    if checkpoint is None:
        return str(RunFolder.of(name, seed).path)
    folder = Path(checkpoint).parent
    named = folder.parent.name and ".." not in folder.parts
    return str(folder if named else os.path.abspath(folder))


def run_group(name: str, seed: int, checkpoint: str | Path | None = None) -> str:
    """Name of the folder above the run folder, which all seeds of a run share."""
    return Path(run_dir(name, seed, checkpoint)).parent.name


def run_id(name: str, seed: int, checkpoint: str | Path | None = None) -> str:
    """Id of the run on W&B, unique for each folder."""
    folder = Path(run_dir(name, seed, checkpoint))
    called = f"{folder.parent.name}-{folder.name}"
    known = re.sub(r"[^\w.-]", "_", called, flags=re.ASCII)
    if known == called and folder.absolute() == Path("runs", *folder.parts[-2:]).absolute():
        return called
    return f"{known}-{sha256(os.fsencode(folder.absolute())).hexdigest()[:8]}"


def refuse_name(name: str) -> None:
    """Refuse a name that cannot be a folder and an id on W&B.

    Raises:
        RunError: The name is empty, too long or has other characters.
    """
    if not NAME.fullmatch(name):
        raise RunError(
            f"--name {name!r} is not a valid name: use 1 to 100 letters a-z and A-Z, digits, "
            "'_', '-' and '.', and start with a letter, a digit or '_'."
        )


def refuse_contradictions(config: Namespace) -> None:
    """Refuse a checkpoint, config.yaml, name and seed that belong to different runs.

    Args:
        config: Options of ``validate``, ``test`` or ``predict``.

    Raises:
        RunError: No checkpoint is given, or the options belong to another run than the checkpoint.
    """
    checkpoint, name, seed = config.ckpt_path, config.name, config.seed_everything
    if checkpoint is None or str(checkpoint) in LIGHTNING_KEYWORDS:
        raise RunError("No checkpoint is given: set --ckpt_path=FOLDER/best.ckpt.")
    folder = Path(run_dir(name, seed, checkpoint))
    for file in map(Path, map(str, config.get("config") or ())):
        if file.name == CONFIG and file.resolve().parent != folder.resolve():
            raise RunError(
                f"{file} and {checkpoint} belong to two runs: give the config.yaml that is beside "
                "the checkpoint."
            )
    if (was := recorded(folder)) is not None and was != (name, seed):
        raise RunError(
            f"The options belong to {name} with seed {seed}, {checkpoint} to {was[0]} with seed "
            f"{was[1]}: give --config {folder}/config.yaml, and omit --name and "
            "--seed_everything, because results go to the folder of the checkpoint."
        )


def recorded(folder: Path) -> tuple[str, int] | None:
    """Name and seed in the config.yaml of a run folder; None if it cannot be read."""
    try:
        record = RunFolder(folder).settings()
        return record["name"], record["seed_everything"]
    except (RunError, KeyError):
        return None


def moved_from(folder: Path) -> str | None:
    """The folder that a run was trained in, if it has been moved since; else None."""
    was = recorded(folder)
    if was is None or folder.absolute() == Path(run_dir(*was)).absolute():
        return None
    return run_dir(*was)
