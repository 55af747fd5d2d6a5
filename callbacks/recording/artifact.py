"""The best checkpoint as an artifact of the W&B run."""

from __future__ import annotations

from pathlib import Path

import wandb
from pytorch_lightning import LightningModule, Trainer

from callbacks.looker import Looker
from callbacks.recording.wandb_logger import ResilientWandbLogger


class BestArtifact(Looker):
    """Uploads ``best.ckpt`` and ``config.yaml`` when a training ends.

    A run does so with ``--trainer.callbacks+=callbacks.recording.artifact.BestArtifact``. A copy of
    the checkpoint then also lies in its ``wandb/``.

    Args:
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.folder = Path(dirpath)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        files = [self.folder / name for name in ("best.ckpt", "config.yaml")]
        if not trainer.is_global_zero or not all(f.exists() for f in files):
            return
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                artifact = wandb.Artifact("-".join(self.folder.parts[-2:]), type="model")
                for file in files:
                    artifact.add_file(str(file))
                logger.log_artifact(artifact)
