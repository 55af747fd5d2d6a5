"""Where a run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from callbacks.run_folder import LAST
from callbacks.safety.checkpoint_io import epochs_done


def resume_from(folder: Path, accumulated: int = 1) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a run to go on from, or None for a run not started.

    It is the one that is furthest on: not the newest file, for a copied folder has new times. One
    that is damaged is named and passed over. So is one from within an accumulation, whose gradient
    is lost, and one from between the last batch of an epoch and its validation, which Lightning
    would leave out.

    Args:
        folder: The run folder.
        accumulated: Batches whose gradients are added up for a step.
    """
    found = []
    for path in folder.glob("*.ckpt"):
        try:
            checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            progress = (checkpoint["global_step"], epochs_done(checkpoint))
            whole = _loses_nothing(checkpoint, accumulated)
        except Exception as error:  # a truncated zip raises half a dozen types
            print(f"{path} is damaged ({error}); looking for an older one.", file=sys.stderr)
            continue
        if whole:
            found.append((progress, path.name == LAST, path, checkpoint))
    return max(found, key=lambda one: one[:2])[2:] if found else None


def _loses_nothing(checkpoint: dict[str, Any], accumulated: int) -> bool:
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    begun, ended = batches["current"]["ready"], batches["current"]["completed"]
    return ended == begun if batches["is_last_batch"] else begun % accumulated == 0
