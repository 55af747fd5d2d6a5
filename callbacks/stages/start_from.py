"""Initialization of a classifier of compressed images from a codec and a classifier."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.stages.warm_start import WarmStart


class StartFrom(Callback):
    """Load the codec, the network, or both from other runs before a run is trained.

    Args:
        codec: Folder of a run that trained a codec, or one of its checkpoints. ``{seed}`` in the
            path stands for the seed of this run.
        network: Folder of a run that trained a classifier, or one of its checkpoints; ``{seed}``
            as above.
    """

    def __init__(self, codec: Path | None = None, network: Path | None = None) -> None:
        runs = {"codec": codec, "network": network}
        # In either run, the trained part is called network.
        self.starts = [
            WarmStart(run, target=part, option=part) for part, run in runs.items() if run
        ]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for start in self.starts:
            start.setup(trainer, pl_module, stage)
