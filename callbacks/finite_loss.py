"""A loss that is no number, caught before it spoils the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.errors import RunError

SHOWN = 3  # images named in the error


class FiniteLoss(Callback):
    """Stops at the first loss that is NaN or infinite, and keeps what it takes to see it again.

    ``nonfinite.pt`` then holds ``state_dict``, ``batch``, ``rng`` and where this was; after
    ``load_state_dict`` and ``torch.set_rng_state``, ``training_step(batch, 0)`` gives that loss on
    the CPU. Checkpoints hold finite weights, so the run goes on from the last one.

    Args:
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.path = Path(dirpath, "nonfinite.pt")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.rng = batch, torch.get_rng_state()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        if loss.isfinite().all():
            return
        index = self.batch["index"].tolist()
        step, epoch = trainer.global_step, trainer.current_epoch
        kept = {
            "loss": loss.item(),
            "step": step,
            "epoch": epoch,
            "index": index,
            "batch": {name: value.cpu() for name, value in self.batch.items()},
            "rng": self.rng,
            "state_dict": pl_module.state_dict(),
        }
        trainer.strategy.checkpoint_io.save_checkpoint(kept, self.path)
        table = trainer.datamodule.table  # type: ignore[attr-defined]
        names = ", ".join(table.loc[index[:SHOWN], "image_id"])
        raise RunError(
            f"The loss is {loss.item()} at step {step} (epoch {epoch}), of {len(index)} images "
            f"from {names} on; {self.path} holds the weights and the batch. Without a smaller "
            "learning rate or --trainer.precision=32 the run comes here again."
        )
