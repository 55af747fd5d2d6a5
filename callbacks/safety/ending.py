"""What ends a training before its last epoch, kept with its checkpoint."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer

from callbacks.safety.checkpoint_io import ENDED

OURS = ("callbacks", "pytorch_lightning")


class Ending(Callback):
    """Notes in the checkpoints of a training what stopped it, so that it is known as finished.

    Lightning forgets that a callback stopped a training: resumed, it trains an epoch before the
    callback can stop it again (pytorch-lightning #8278).
    """

    def __init__(self) -> None:
        self.epoch_over = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_over = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_over = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Before the end of its epoch, a training that is to stop still has to be validated.
        stops = trainer.should_stop and trainer.fit_loop._can_stop_early
        if self.epoch_over and stops:
            checkpoint[ENDED] = next((end for end, met in _ends(trainer) if met), other(trainer))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # EarlyStopping would take its patience from there, whatever it is given now.
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if isinstance(callback, EarlyStopping) and state:
                state["patience"] = callback.patience


def ended(checkpoint: dict[str, Any], trainer: Trainer) -> str | None:
    """What stopped a run, if a training with the options of now would be stopped by the same."""
    end: str | None = checkpoint.get(ENDED)
    return end if end in {*(end for end, _ in _ends(trainer)), other(trainer)} else None


def other(trainer: Trainer) -> str:
    """The end by callbacks that tell nothing of it."""
    kinds = {type(each) for each in trainer.callbacks}  # type: ignore[attr-defined]
    foreign = {k.__name__ for k in kinds if k.__module__.split(".")[0] not in OURS}
    return f"a callback ({', '.join(sorted(foreign))})" if foreign else "the model"


def _ends(trainer: Trainer) -> list[tuple[str, bool]]:
    """What may stop a training early, in words, and whether it does now."""
    found = []
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in sorted(callbacks, key=lambda each: isinstance(each, EarlyStopping)):
        if isinstance(callback, EarlyStopping):
            bounds = {
                "patience": callback.patience,
                "min_delta": abs(callback.min_delta),
                "stopping_threshold": callback.stopping_threshold,
                "divergence_threshold": callback.divergence_threshold,
            }
            said = ", ".join(f"{name} {value}" for name, value in bounds.items() if value)
            now = callback.stopped_epoch == trainer.current_epoch  # in epoch 0, of any
            stopped = now or callback.wait_count >= callback.patience
            found.append((f"EarlyStopping on {callback.monitor} ({said})", stopped))
        elif isinstance(callback, Timer) and callback._duration is not None:
            left = callback.time_remaining()
            limit = f"max_time ({timedelta(seconds=callback._duration)})"
            found.append((limit, left is not None and left <= 0))
    return found
