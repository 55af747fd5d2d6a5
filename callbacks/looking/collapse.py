"""Joint training of codec and classifier can lose what it was to keep; here it is said."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer

from callbacks.errors import require
from callbacks.looker import Looker
from callbacks.recording.wandb_logger import ResilientWandbLogger


class Collapse(Looker):
    """Looks after every validation whether image or diagnosis are lost.

    The image is lost where the reconstructions explain nothing of it: each image's mean colour
    would have had no larger error. Cross-entropy alone may well lead there, for it does not ask
    for an image. The diagnosis is lost where all images get the same class. Logs
    ``val/collapsed``, 1 or 0, and tags the run on W&B.

    Args:
        after: Epochs that are passed over, for a training begins with neither.
    """

    def __init__(self, after: int = 3) -> None:
        self.after = after

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require(pl_module, "codec", self)
        require(pl_module, "classify", self)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metric: Any = pl_module.metrics["val"]  # type: ignore[index]
        lost = what_is_lost(metric.compute()) if trainer.current_epoch >= self.after else []
        pl_module.log("val/collapsed", float(bool(lost)))
        if lost and trainer.is_global_zero:
            print(f"COLLAPSE in epoch {trainer.current_epoch}: {'; '.join(lost)}.")
            for logger in trainer.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.add_tag("collapsed")


def what_is_lost(computed: dict[str, Any]) -> list[str]:
    """Image, diagnosis, or neither, in words."""
    lost = []
    if computed.get("explained", 1) <= 0:
        lost.append("the reconstructions tell less of the images than their mean colours")
    occurring, decided = ((computed["confusion"].sum(axis) > 0).sum() for axis in (1, 0))
    if occurring > 1 and decided == 1:
        lost.append("all images are given the same class")
    return lost
