"""Detection of NaN and infinite losses before they reach the weights."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.errors import RunError
from callbacks.run_callback import RunCallback

IMAGES_NAMED = 3  # in the error message


class FiniteLoss(RunCallback):
    """Stop a run at the first NaN or infinite loss, and save what is needed to reproduce it.

    ``nonfinite.pt`` in the run folder holds ``state_dict``, ``batch``, ``rng``, the step and the
    epoch: after ``load_state_dict`` and ``torch.set_rng_state``, ``training_step(batch, 0)``
    computes that loss on the CPU. The exception are losses with a queue or moving prototypes,
    which have already been updated with the batch. Checkpoints hold finite weights, so that the run
    can be resumed from the last one.

    Args:
        dirpath: Run folder; set by the command line.
    """

    def __init__(self, dirpath: str = "") -> None:
        super().__init__(dirpath)
        self.path = self.folder / "nonfinite.pt"
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
        on_cpu = torch.empty_like(loss, device="cpu", pin_memory=True)
        self.loss = on_cpu.copy_(loss.detach(), non_blocking=True)
        self.copied = torch.cuda.current_stream(loss.device).record_event()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.copied is not None:  # the copy ran beside the backward pass
            self.copied.synchronize()
        loss = self.loss
        if loss.isfinite().all():
            return
        index = self.batch["index"].tolist()
        step, epoch = trainer.global_step, trainer.current_epoch
        report = {
            "loss": loss.item(),
            "step": step,
            "epoch": epoch,
            "index": index,
            "batch": {name: value.cpu() for name, value in self.batch.items()},
            "rng": self.rng,
            "state_dict": pl_module.state_dict(),
        }
        trainer.strategy.checkpoint_io.save_checkpoint(report, self.path)
        table = self.data(trainer).table
        names = ", ".join(table.loc[index[:IMAGES_NAMED], "image_id"])
        raise RunError(
            f"The loss is {loss.item()} at step {step} (epoch {epoch}), for {len(index)} images "
            f"starting with {names}; {self.path} holds the weights and the batch. The run would "
            "fail here again: if its precision was lower, run the same command with "
            "--trainer.precision=32-true; otherwise start a new run, with its own --name and a "
            "smaller --model.optimizer.lr."
        )
