"""Where a run lies, and what it is called there.

A training lies in ``runs/<name>/seed<seed>``. Whatever uses it afterwards writes beside the
checkpoint that it is given, so that a run which was renamed, moved or copied is the run that its
folder says, and not the one that its ``config.yaml`` was once started as.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from callbacks.errors import RunError
from callbacks.run_folder import CONFIG, RunFolder

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LIGHTNINGS = ("best", "last", "hpc")  # what its trainers look for where nothing has been trained


def run_dir(name: str, seed: int, checkpoint: str | Path | None = None) -> str:
    """The run folder: that of ``checkpoint`` if there is one."""
    if checkpoint is None:
        return str(RunFolder.of(name, seed).path)
    folder = Path(checkpoint).parent
    named = folder.parent.name and ".." not in folder.parts
    return str(folder if named else os.path.abspath(folder))


def run_group(name: str, seed: int, checkpoint: str | Path | None = None) -> str:
    """What the seeds of a run have in common: the folder above the run folder."""
    return Path(run_dir(name, seed, checkpoint)).parent.name


def run_id(name: str, seed: int, checkpoint: str | Path | None = None) -> str:
    """What W&B recognises the run by; no two folders have it in common."""
    folder = Path(run_dir(name, seed, checkpoint))
    called = f"{folder.parent.name}-{folder.name}"
    known = re.sub(r"[^\w.-]", "_", called, flags=re.ASCII)
    if known == called and folder.absolute() == Path("runs", *folder.parts[-2:]).absolute():
        return called
    return f"{known}-{sha256(os.fsencode(folder.absolute())).hexdigest()[:8]}"


def refuse_name(name: str) -> None:
    """Refuses what is no folder, or no id on W&B.

    Raises:
        RunError: The name has other characters than it may have.
    """
    if not NAME.fullmatch(name):
        raise RunError(
            f"--name {name!r} is no name of a run: use 1 to 100 letters a-z and A-Z, digits, "
            "'_', '-' and '.', and begin with a letter, a digit or '_'."
        )


def refuse_contradictions(config: Any) -> None:
    """Holds what uses a run to one folder, which is that of the checkpoint.

    Args:
        config: The options of ``validate``, ``test`` or ``predict``.

    Raises:
        RunError: There is no checkpoint, or the options are of another run than the checkpoint.
    """
    checkpoint, name, seed = config.ckpt_path, config.name, config.seed_everything
    if checkpoint is None or str(checkpoint) in LIGHTNINGS:
        raise RunError("Name the checkpoint to use: --ckpt_path FOLDER/best.ckpt.")
    folder = Path(run_dir(name, seed, checkpoint))
    for file in map(Path, map(str, config.get("config") or ())):
        if file.name == CONFIG and file.resolve().parent != folder.resolve():
            raise RunError(
                f"{file} and {checkpoint} are of two runs: give the config.yaml of the folder of "
                "the checkpoint."
            )
    if (was := recorded(folder)) is not None and was != (name, seed):
        raise RunError(
            f"The options are of {name} with seed {seed}, {checkpoint} is of {was[0]} with seed "
            f"{was[1]}: give --config {folder}/config.yaml, and leave out --name and "
            "--seed_everything, because results go to the folder of the checkpoint."
        )


def recorded(folder: Path) -> tuple[str, int] | None:
    """Name and seed that a run folder was trained as; None where its record has none."""
    try:
        record = RunFolder(folder).settings()
        return record["name"], record["seed_everything"]
    except (RunError, KeyError):
        return None


def moved_from(folder: Path) -> str | None:
    """The folder that a run was trained in, if it lies elsewhere now."""
    was = recorded(folder)
    if was is None or folder.absolute() == Path(run_dir(*was)).absolute():
        return None
    return run_dir(*was)
