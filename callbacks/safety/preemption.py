"""Saving of a checkpoint when the process is asked to stop."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import distributed as dist

from callbacks.recording.wandb_logger import ResilientWandbLogger
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder
from callbacks.safety.exit_codes import EXIT_REQUEUE

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPT_NOTE = b"\nStopping after this step or validation; press Ctrl-C again to stop at once.\n"


class Preemption(RunCallback):
    """Save ``last.ckpt`` when a signal asks the process to stop, and exit with code 75.

    Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 only set a flag. After each optimizer step the processes
    agree whether any of them got a signal; if so, all save together and exit. A validation that has
    begun is completed first. A second Ctrl-C stops at once. Lightning's own handlers save in the
    middle of a step, or not at all.

    Args:
        every_n_steps: Number of steps, at least 1, between additional saves of ``last.ckpt``, for
            crashes, which give no warning; None saves after epochs only.
        dirpath: Run folder; set by the command line.
    """

    def __init__(self, every_n_steps: int | None = None, dirpath: str = "") -> None:
        super().__init__(dirpath)
        self.every_n_steps = every_n_steps
        self.path = RunFolder(self.folder).last
        self.received: int = 0  # number of the signal
        self.leaving = False
        self.group: Any = None

    # Not earlier: Lightning sets its own handlers until here, and restores the old ones at the end.

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.listen()
        if trainer.world_size > 1:  # on the CPU, so that no GPU waits for it
            self.group = dist.new_group(backend="gloo")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self.leave_at_once()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave_at_once()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave_at_once()

    def leave_at_once(self) -> None:
        """Exit on SIGTERM when there is nothing to save; Lightning would ignore the signal."""

        def leave(number: int, _: FrameType | None) -> None:
            os.write(2, b"\nSIGTERM: no results were written; run the same command again.\n")
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, leave)

    def listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self.note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a batch job blocks them until here

    def note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.received == number:
                raise KeyboardInterrupt
            os.write(2, INTERRUPT_NOTE)  # print itself may have been interrupted
        self.received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        within_step = (batch_idx + 1) % trainer.accumulate_grad_batches
        if within_step or trainer.is_last_batch:  # the validation of the epoch follows
            return
        self.leaving = self.agree()
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if self.leaving or due:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leaving = self.agree()
        if self.leaving:
            trainer.save_checkpoint(self.path)

    # Not right after saving: the metrics of that step are logged in between.

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.leave_if_saved(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.leave_if_saved(trainer)

    def agree(self) -> bool:
        """Whether any process got a signal."""
        received = torch.tensor(self.received)
        if self.group is not None:
            dist.all_reduce(received, dist.ReduceOp.MAX, group=self.group)
        self.received = int(received)
        return self.received > 0

    def leave_if_saved(self, trainer: Trainer) -> None:
        if self.leaving:
            self.leave(trainer)

    def leave(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            trainer.strategy.barrier("leave")
            raise SystemExit(0)  # or the launcher would kill the first process
        name, step = signal.Signals(self.received).name, trainer.global_step
        print(f"{name}: {self.path} holds step {step}; run the same command to resume.", flush=True)
        for dashboard in self.dashboards(trainer):
            dashboard.mark_preempting()
        ResilientWandbLogger.finish(EXIT_REQUEUE)
        trainer.strategy.barrier("leave")
        raise SystemExit(EXIT_REQUEUE)
