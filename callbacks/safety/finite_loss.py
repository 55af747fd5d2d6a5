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
    the CPU. A queue or moving prototypes have met the batch by then: with them the loss is another.
    Checkpoints hold finite weights, so the run goes on from the last one.

    Args:
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.path = Path(dirpath, "nonfinite.pt")
        self.copied: torch.cuda.Event | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.rng = batch, torch.get_rng_state()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        if not loss.is_cuda:
            self.loss, self.copied = loss.detach(), None
            return
        here = torch.empty_like(loss, device="cpu", pin_memory=True)
        self.loss = here.copy_(loss.detach(), non_blocking=True)
        self.copied = torch.cuda.current_stream(loss.device).record_event()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.copied is not None:  # a GPU has the backward pass to do meanwhile
            self.copied.synchronize()
        loss = self.loss
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
            f"from {names} on; {self.path} holds the weights and the batch. The run would "
            "come here again: set --trainer.precision=32-true if it was lower and start the same "
            "command, or start a new run, with a --name of its own, at a smaller "
            "--model.optimizer.lr."
        )
