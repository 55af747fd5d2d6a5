"""Warnings when joint training of codec and classifier loses the image or the diagnosis."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.errors import require
from callbacks.looker import Looker


class Collapse(Looker):
    """Warn after a validation if the image or the diagnosis is lost.

    The image is lost if the reconstructions have at least the error of each image's mean color.
    Cross-entropy alone can lead there, because it does not ask for an image. The diagnosis is lost
    if all images get the same class. Logs ``val/collapsed``, 1 or 0, and tags the run
    ``collapsed`` on W&B.

    Args:
        after: Number of epochs before the first check, because training starts with neither.
    """

    def __init__(self, after: int = 3) -> None:
        super().__init__()
        self.after = after

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require(pl_module, "codec", self)
        require(pl_module, "classify", self)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        computed = self.metric(pl_module, "val").compute()
        lost = lost_parts(computed) if trainer.current_epoch >= self.after else []
        pl_module.log("val/collapsed", float(bool(lost)))
        if lost and trainer.is_global_zero:
            print(f"COLLAPSE in epoch {trainer.current_epoch}: {'; '.join(lost)}.")
            for dashboard in self.dashboards(trainer):
                dashboard.add_tag("collapsed")


def lost_parts(computed: dict[str, Tensor]) -> list[str]:
    """Sentences about a lost image and a lost diagnosis; empty if neither is lost."""
    lost = []
    if computed.get("explained", 1) <= 0:
        lost.append("the reconstructions explain no more of the images than their mean colors")
    occurring, decided = ((computed["confusion"].sum(axis) > 0).sum() for axis in (1, 0))
    if occurring > 1 and decided == 1:
        lost.append("all images are given the same class")
    return lost
