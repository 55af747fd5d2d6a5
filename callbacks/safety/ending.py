"""Record of why a run ended before its last epoch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer

from callbacks.safety.progress import ENDED

KNOWN_PACKAGES = ("callbacks", "pytorch_lightning")


class Ending(Callback):
    """Record in the checkpoint what stopped a run early, so that the run counts as finished.

    Lightning forgets that a callback stopped a run: when resumed, it trains another epoch before
    the callback can stop it again (pytorch-lightning #8278).
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
        # Before the end of its epoch, a run that is to stop still has to be validated.
        stops = trainer.should_stop and trainer.fit_loop._can_stop_early
        if self.epoch_over and stops:
            checkpoint[ENDED] = next((end for end, met in _ends(trainer) if met), _other(trainer))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # EarlyStopping would restore its old patience, whatever it is set to now.
        for callback in _callbacks(trainer):
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if isinstance(callback, EarlyStopping) and state:
                state["patience"] = callback.patience


def ended(checkpoint: dict[str, Any], trainer: Trainer) -> str | None:
    """The cause that ended a run early; None if it would not with the current options."""
    end: str | None = checkpoint.get(ENDED)
    return end if end in {*(end for end, _ in _ends(trainer)), _other(trainer)} else None


def _other(trainer: Trainer) -> str:
    """The name of an end that no known callback explains."""
    kinds = {type(callback) for callback in _callbacks(trainer)}
    foreign = {k.__name__ for k in kinds if k.__module__.split(".")[0] not in KNOWN_PACKAGES}
    return f"a callback ({', '.join(sorted(foreign))})" if foreign else "the model"


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def _ends(trainer: Trainer) -> list[tuple[str, bool]]:
    """Descriptions of what may end a run early, each with whether its condition is met now."""
    ends = []
    for callback in sorted(_callbacks(trainer), key=lambda c: isinstance(c, EarlyStopping)):
        if isinstance(callback, EarlyStopping):
            bounds = {
                "patience": callback.patience,
                "min_delta": abs(callback.min_delta),
                "stopping_threshold": callback.stopping_threshold,
                "divergence_threshold": callback.divergence_threshold,
            }
            settings = ", ".join(f"{name} {value}" for name, value in bounds.items() if value)
            stopped_now = callback.stopped_epoch == trainer.current_epoch  # true of any in epoch 0
            stopped = stopped_now or callback.wait_count >= callback.patience
            ends.append((f"EarlyStopping on {callback.monitor} ({settings})", stopped))
        elif isinstance(callback, Timer) and callback._duration is not None:
            left = callback.time_remaining()
            limit = f"max_time ({timedelta(seconds=callback._duration)})"
            ends.append((limit, left is not None and left <= 0))
    return ends
