"""A training that is told to stop leaves nothing behind that it would have to do again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import distributed as dist

from callbacks.recording.wandb_logger import ResilientWandbLogger

GO_ON = 75  # EX_TEMPFAIL: the same command goes on; a batch job requeues itself
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE = b"\nStopping at the end of this step or validation; Ctrl-C again stops at once.\n"


class Preemption(Callback):
    """Saves ``last.ckpt`` when a signal asks the process to go, and leaves with code 75.

    Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 only set a flag. At the end of an optimizer step the
    processes agree whether any of them was told; then all save together and leave. A validation
    that has begun is finished first: half of it is worth nothing. A second Ctrl-C waits for
    nothing. Lightning's own handlers save in the middle of whatever is going on, or not at all.

    Args:
        every_n_steps: Saves ``last.ckpt`` this often besides, for ends that nobody announces.
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, every_n_steps: int | None = None, dirpath: str = "") -> None:
        self.every_n_steps, self.path = every_n_steps, Path(dirpath, "last.ckpt")
        self.told: int = 0
        self.leaving = False
        self.group: Any = None

    # Not before: Lightning sets handlers of its own until here, and in the end puts back what was.

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.listen()
        if trainer.world_size > 1:  # on the CPU, so that no GPU waits for the answer
            self.group = dist.new_group(backend="gloo")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self.leave_at_once()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave_at_once()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave_at_once()

    def leave_at_once(self) -> None:
        """Obeys SIGTERM where there is nothing to save; Lightning passes over it."""

        def leave(number: int, _: FrameType | None) -> None:
            os.write(2, b"\nSIGTERM: the results are not written; start the same command again.\n")
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, leave)

    def listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self.note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a batch job blocks them until now

    def note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.told == number:
                raise KeyboardInterrupt
            os.write(2, PATIENCE)  # print may be what was interrupted
        self.told = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        within_step = (batch_idx + 1) % trainer.accumulate_grad_batches
        if within_step or trainer.is_last_batch:  # of the epoch: what follows is its validation
            return
        self.leaving = self.agree()
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if self.leaving or due:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leaving = self.agree()
        if self.leaving:
            trainer.save_checkpoint(self.path)

    # Not where it saved: the metrics of that step are logged between there and here.

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.leave_if_saved(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave_if_saved(trainer)

    def agree(self) -> bool:
        """Whether any process was told to go."""
        told = torch.tensor(self.told)
        if self.group is not None:
            dist.all_reduce(told, dist.ReduceOp.MAX, group=self.group)
        self.told = int(told)
        return self.told > 0

    def leave_if_saved(self, trainer: Trainer) -> None:
        if self.leaving:
            self.leave(trainer)

    def leave(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            trainer.strategy.barrier("leave")
            raise SystemExit(0)  # or whoever started the processes kills the first for it
        name, step = signal.Signals(self.told).name, trainer.global_step
        print(f"{name}: {self.path} holds step {step}; the same command goes on.", flush=True)
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.mark_preempting()
        ResilientWandbLogger.finish(GO_ON)
        trainer.strategy.barrier("leave")
        raise SystemExit(GO_ON)
