"""The checkpoint that a run resumes from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from callbacks.run_folder import LAST
from callbacks.safety.checkpoint_io import epochs_done


def resume_from(folder: Path, accumulated: int = 1) -> tuple[Path, dict[str, Any]] | None:
    """Load the checkpoint to resume from; return None if the run has none.

    This is the checkpoint with the most steps, not the newest file, since copying a folder changes
    the times of its files. Damaged checkpoints are reported and skipped. Checkpoints saved during a
    gradient accumulation are skipped because the summed gradient is lost; those saved between the
    last batch of an epoch and its validation, because Lightning would omit that validation.

    Args:
        folder: Run folder.
        accumulated: Number of batches whose gradients are summed for one step.

    Returns:
        Path and content of the checkpoint.
    """
    candidates = []
    for path in folder.glob("*.ckpt"):
        try:
            checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            progress = (checkpoint["global_step"], epochs_done(checkpoint))
            resumable = _loses_nothing(checkpoint, accumulated)
        except Exception as error:  # a truncated zip raises half a dozen types
            print(f"{path} is damaged ({error}); looking for an older one.", file=sys.stderr)
            continue
        if resumable:
            candidates.append((progress, path.name == LAST, path, checkpoint))
    return max(candidates, key=lambda entry: entry[:2])[2:] if candidates else None


def _loses_nothing(checkpoint: dict[str, Any], accumulated: int) -> bool:
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    begun, ended = batches["current"]["ready"], batches["current"]["completed"]
    return ended == begun if batches["is_last_batch"] else begun % accumulated == 0
