"""Checkpoints that a crash, a kill or a full disk cannot damage."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from callbacks.errors import RunError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
ENDED = "ended"  # what stopped a training before its limits, in its checkpoints
KEPT = {"last.ckpt": "previous.ckpt"}


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and then replaces it, so that a checkpoint is whole or the old one.

    Lightning stages in ``$TMPDIR`` and moves: across file systems that is a copy, and a kill in
    the middle of it leaves an empty ``last.ckpt`` (pytorch-lightning #21253). Paths are local.

    The ``last.ckpt`` that is replaced stays as ``previous.ckpt``, for disks that damage files.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("DurableCheckpointIO writes local files; it takes no storage_options.")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.partial")  # a kill leaves it to the next save
        try:
            with _naming(target), temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name in KEPT and target.exists():
                os.replace(target, target.with_name(KEPT[target.name]))
            os.replace(temporary, target)
            _sync_directory(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """State alone, whatever Lightning asks for: a checkpoint from elsewhere runs no code."""
        return load_state(path, map_location)


def load_state(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """What a checkpoint holds; no code in it is run.

    Raises:
        RunError: There is none, or it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"There is no checkpoint {path}: train until an epoch is validated."
        ) from None
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a truncated zip raises half a dozen types
        raise RunError(
            f"{path} is damaged ({type(error).__name__}): use a copy of it, or another checkpoint "
            "of the run, such as last.ckpt."
        ) from error
    return state


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """Epochs that were trained to their end when the checkpoint was written."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def reached(
    checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int | None
) -> str | None:
    """The limit that a run has come to, ``max_epochs`` or ``max_steps``; None and -1 are none."""
    limits = {
        "max_epochs": (epochs_done(checkpoint), max_epochs),
        "max_steps": (checkpoint["global_step"], max_steps),
    }
    ends = (k for k, (done, limit) in limits.items() if limit is not None and 0 <= limit <= done)
    return next(ends, None)


def finished(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int | None) -> bool:
    """Whether a run has come to either limit, or was ended before by what it was trained with."""
    return ENDED in checkpoint or reached(checkpoint, max_epochs, max_steps) is not None


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Turns a full disk into a sentence about ``target``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch hides the failed write: its archive's end raises a RuntimeError on top of it.
        causes = (error, error.__cause__, error.__context__)
        if not any(isinstance(cause, OSError) and cause.errno in DISK_FULL for cause in causes):
            raise
        raise RunError(
            f"The disk is full: {target} was not written, the checkpoint saved before it is "
            "untouched; free some space and start the same command again."
        ) from error


def _sync_directory(folder: Path) -> None:
    """Makes a rename survive a power cut: the new name lives in the directory, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
