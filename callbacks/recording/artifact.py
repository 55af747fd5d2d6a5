"""Upload of the best checkpoint to W&B."""

from __future__ import annotations

import wandb
from pytorch_lightning import LightningModule, Trainer

from callbacks.looker import Looker
from callbacks.run_folder import RunFolder


class BestArtifact(Looker):
    """Upload ``best.ckpt`` and ``config.yaml`` as a W&B artifact when training ends.

    Add it to a run with ``--trainer.callbacks+=callbacks.BestArtifact``. W&B keeps another copy of
    the checkpoint in ``wandb/`` of the run folder.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        files = [RunFolder(self.folder).best, RunFolder(self.folder).config]
        if not trainer.is_global_zero or not all(file.exists() for file in files):
            return
        for dashboard in self.dashboards(trainer):
            artifact = wandb.Artifact("-".join(self.folder.parts[-2:]), type="model")
            for file in files:
                artifact.add_file(str(file))
            dashboard.log_artifact(artifact)
