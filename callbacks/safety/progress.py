"""Progress that a checkpoint records, read without torch."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

ENDED = "ended"  # key in a checkpoint: the cause that ended the run before its limits


def read_progress(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without its tensors, which become empty placeholders.

    Only the index of the file is read, and no code in it is run. ``import torch`` takes seconds.

    Args:
        path: A checkpoint in the format of ``torch.save``.

    Raises:
        Exception: The checkpoint is damaged; the type depends on the damage.
    """
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(index) as file:
            checkpoint: dict[str, Any] = _WithoutTensors(file).load()
    return checkpoint


class _WithoutTensors(pickle.Unpickler):
    """Read plain values; all else, such as tensors, becomes a :class:`_Placeholder`."""

    def find_class(self, module: str, name: str) -> type:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Placeholder

    def persistent_load(self, pid: object) -> None:
        """Skip the numbers of a tensor."""


class _Placeholder:
    """Value of a class that is not imported."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """Number of completed epochs of a checkpoint."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def reached(
    checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int | None
) -> str | None:
    """The limit that a checkpoint has reached, "max_epochs" or "max_steps", or None.

    Args:
        checkpoint: Content of the checkpoint.
        max_epochs: Maximum number of epochs; None and -1 are no limit.
        max_steps: Maximum number of optimizer steps; None and -1 are no limit.
    """
    limits = {
        "max_epochs": (epochs_done(checkpoint), max_epochs),
        "max_steps": (checkpoint["global_step"], max_steps),
    }
    ends = (k for k, (done, limit) in limits.items() if limit is not None and 0 <= limit <= done)
    return next(ends, None)


def finished(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int | None) -> bool:
    """Whether a run has reached a limit, or was ended early, such as by ``EarlyStopping``."""
    return ENDED in checkpoint or reached(checkpoint, max_epochs, max_steps) is not None
