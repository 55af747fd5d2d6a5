"""Writing of checkpoints that no crash, kill or full disk can damage."""

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
from callbacks.run_folder import LAST, PREVIOUS

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
BACKUPS = {LAST: PREVIOUS}


class DurableCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its target and then replace the target atomically.

    Lightning writes to ``$TMPDIR`` and moves the file: across file systems that is a copy, and a
    kill during the copy leaves an empty ``last.ckpt`` (pytorch-lightning #21253). Only local paths
    are supported.

    A ``last.ckpt`` that is replaced is kept as ``previous.ckpt``, in case the disk damages files.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError(
                "DurableCheckpointIO writes local files only: leave out storage_options."
            )
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(
            f".{target.name}.partial"
        )  # after a kill, the next save replaces it
        try:
            with _naming(target), temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name in BACKUPS and target.exists():
                os.replace(target, target.with_name(BACKUPS[target.name]))
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
        """Load tensors and plain values only, so that no checkpoint can run code."""
        return load_state(path, map_location)


def load_state(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Load a checkpoint without running any code in it.

    Raises:
        RunError: The checkpoint does not exist or is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"There is no checkpoint {path}: train until the first epoch is validated."
        ) from None
    except IsADirectoryError:
        raise RunError(f"{path} is a folder: name a checkpoint in it, such as {LAST}.") from None
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a truncated zip raises half a dozen types
        raise RunError(
            f"{path} is damaged ({type(error).__name__}): restore it from a copy, or use another "
            "checkpoint of the run, such as last.ckpt."
        ) from error
    return state


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Raise a full disk as a :class:`RunError` that names ``target``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch hides the failed write: closing its archive raises a RuntimeError on top of it.
        causes = (error, error.__cause__, error.__context__)
        if not any(isinstance(cause, OSError) and cause.errno in DISK_FULL for cause in causes):
            raise
        raise RunError(
            f"The disk is full: {target} was not written, and the previous checkpoint is "
            "unchanged. Free some space and run the same command again."
        ) from error


def _sync_directory(folder: Path) -> None:
    """Make a rename survive a power cut: names are stored in the directory, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
