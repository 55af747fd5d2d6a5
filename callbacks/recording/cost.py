"""What a training costs: time and memory."""

from __future__ import annotations

import resource
import sys
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer

from callbacks.looker import Looker


class Cost(Looker):
    """Logs what every epoch of training takes, its validation not counted.

    - ``cost/seconds``: how long it took;
    - ``cost/images_per_second``: of all processes together;
    - ``cost/memory_gb``: the most that was held so far, of the GPU's memory by the first process
      or, on a CPU, of the main memory. In units of 10^9 bytes.
    """

    start: float | None = None  # the rest of an epoch that goes on is not measured

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self.start is None:  # validation has stopped it, or the epoch began in another process
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds, self.start = perf_counter() - self.start, None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        images = trainer.num_training_batches * data.batch_size
        cost = {
            "seconds": seconds,
            "images_per_second": images / seconds,
            "memory_gb": peak_memory(device) / 1e9,
        }
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"cost/{name}": value for name, value in cost.items()}
                | {"epoch": trainer.current_epoch},
                step=trainer.global_step - 1,
            )


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: on a GPU as torch counts them, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
