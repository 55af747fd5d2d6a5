"""Where a run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch


def resume_from(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The readable checkpoint of a run that is furthest on, or None for a run not started.

    A damaged checkpoint is named, and the one before it is taken.
    """
    found = []
    for path in folder.glob("*.ckpt"):
        try:
            checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            progress = (checkpoint["global_step"], epochs_done(checkpoint))
        except Exception as error:  # a truncated zip raises half a dozen types
            print(f"{path} is damaged ({error}); looking for an older one.", file=sys.stderr)
        else:
            found.append((progress, path.name == "last.ckpt", path, checkpoint))
    # Not the newest file: a copied folder has new times.
    return max(found, key=lambda one: one[:2])[2:] if found else None


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """Epochs that were trained to their end when the checkpoint was written."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
