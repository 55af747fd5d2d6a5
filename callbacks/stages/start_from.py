"""A classifier of compressed images begins with a codec and a network of other runs."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.stages.warm_start import WarmStart


class StartFrom(Callback):
    """Loads the codec, the network, or both before a training starts.

    Args:
        codec: The folder of a run that trained a codec, or a checkpoint of it. ``{seed}`` in it is
            the seed of this run.
        network: The folder of a run that trained a classifier, likewise.
    """

    def __init__(self, codec: Path | None = None, network: Path | None = None) -> None:
        runs = {"codec": codec, "network": network}
        # What either run trained is its network.
        self.starts = [
            WarmStart(run, target=part, option=part) for part, run in runs.items() if run
        ]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for start in self.starts:
            start.setup(trainer, pl_module, stage)
