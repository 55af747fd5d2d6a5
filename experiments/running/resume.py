"""The checkpoint that a run resumes from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callbacks.run_folder import LAST
from callbacks.safety.progress import epochs_done


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, whose tensors stay on the disk until they are used."""
    import torch

    checkpoint: dict[str, Any] = torch.load(path, "cpu", mmap=True, weights_only=True)
    return checkpoint


def resume_from(
    folder: Path, accumulated: int = 1, read: Callable[[Path], dict[str, Any]] = read_checkpoint
) -> tuple[Path, dict[str, Any]] | None:
    """Load the checkpoint to resume from; return None if the run has none.

    This is the checkpoint with the most steps, not the newest file, since copying a folder changes
    the times of its files. Damaged checkpoints are reported and skipped. Checkpoints saved during a
    gradient accumulation are skipped because the summed gradient is lost; those saved between the
    last batch of an epoch and its validation, because Lightning would omit that validation.

    Args:
        folder: Run folder.
        accumulated: Number of batches whose gradients are summed for one step.
        read: Function that reads a checkpoint, such as
            :func:`callbacks.safety.progress.read_progress`, which needs no torch.

    Returns:
        Path and content of the checkpoint.
    """
    candidates = []
    for path in folder.glob("*.ckpt"):
        try:
            checkpoint = read(path)
            progress = (int(checkpoint["global_step"]), epochs_done(checkpoint))
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
