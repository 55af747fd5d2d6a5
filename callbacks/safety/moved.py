"""Checkpoint paths of a run whose folder was renamed or moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

PATH_KEYS = ("best_model_path", "kth_best_model_path", "last_model_path")


class Moved(Callback):
    """Update the paths in the state of ``ModelCheckpoint`` when a moved run is resumed.

    Otherwise it would forget its best score, and the next epoch, however bad, would replace
    ``best.ckpt``. The state of a checkpoint from another folder is left unchanged.
    """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        folder = Path(trainer.ckpt_path or "").resolve().parent
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if not isinstance(callback, ModelCheckpoint) or not state:
                continue
            if Path(callback.dirpath or "").resolve() == folder:
                now = {path: str(Path(folder, Path(path).name)) for path in _paths(state)}
                state |= {key: now.get(state[key], state[key]) for key in PATH_KEYS}
                state["best_k_models"] = {now[k]: v for k, v in state["best_k_models"].items()}
                state["dirpath"] = callback.dirpath


def _paths(state: dict[str, Any]) -> set[str]:
    return {path for path in (*state["best_k_models"], *(state[key] for key in PATH_KEYS)) if path}
