"""Where a run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch


def resume_from(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest readable checkpoint of a run and its content, or None for a run not started.

    A damaged checkpoint is named, and the one before it is taken.
    """
    for path in sorted(folder.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            return path, torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # a truncated zip raises half a dozen types
            print(f"{path} is damaged ({error}); looking for an older one.", file=sys.stderr)
    return None


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """Epochs that were trained to their end when the checkpoint was written."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
