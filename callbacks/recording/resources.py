"""Time and memory of training."""

from __future__ import annotations

import resource
import sys
from time import perf_counter

import torch
from pytorch_lightning import LightningModule, Trainer

from callbacks.looker import Looker


class Resources(Looker):
    """Log the time and memory of each epoch of training, validation excluded.

    - ``resources/seconds``: duration of the epoch;
    - ``resources/images_per_second``: throughput of all processes together;
    - ``resources/memory_gb``: peak memory so far, in units of 10^9 bytes: of the first process's
      GPU or, on a CPU, main memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.start: float | None = None  # None in a resumed epoch, which is not measured

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self.start is None:  # stopped by the validation, or begun in another process
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = perf_counter() - self.start
        self.start = None
        images = trainer.num_training_batches * self.data(trainer).batch_size
        metrics = {
            "resources/seconds": seconds,
            "resources/images_per_second": images / seconds,
            "resources/memory_gb": peak_memory(device) / 1e9,
            "epoch": trainer.current_epoch,
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: allocated by torch on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
