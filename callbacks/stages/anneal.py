"""A number of the model that changes with the epochs."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.errors import RunError


class Anneal(Callback):
    """Moves an attribute of the model linearly from ``start`` to ``end``, epoch by epoch.

    It is a function of the epoch alone, so a run that goes on finds the value it would have had.

    Args:
        attribute: Its path in the module, such as ``criterion.quantile``.
        start: Its value at ``begin``.
        end: Its value from ``until`` on.
        begin: Share of the training at which it starts to move, in [0, 1].
        until: Share of the training at which it arrives, in [``begin``, 1].
        before: Its value before ``begin``, for a warm-up; None is ``start``.
    """

    def __init__(
        self,
        attribute: str,
        start: float,
        end: float,
        begin: float = 0.0,
        until: float = 1.0,
        before: float | None = None,
    ) -> None:
        if not 0 <= begin <= until <= 1:
            raise RunError(f"Anneal needs 0 <= begin <= until <= 1, not {begin} and {until}.")
        self.attribute, self.start, self.end = attribute, start, end
        self.begin, self.until = begin, until
        self.before = start if before is None else before

    def value(self, done: float) -> float:
        """Its value when a share ``done`` of the training is done."""
        if done < self.begin:
            return self.before
        if done >= self.until:
            return self.end
        moved = (done - self.begin) / (self.until - self.begin)
        return self.start + (self.end - self.start) * moved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which an epoch that goes on does not have

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise RunError(f"Anneal of {self.attribute} needs trainer.max_epochs: set it.")
        owner: Any = pl_module
        *owners, name = self.attribute.split(".")
        for part in owners:
            owner = getattr(owner, part, None)
        if not hasattr(owner, name):
            raise RunError(
                f"Anneal finds no {self.attribute} in {type(pl_module).__name__}: correct its "
                "attribute."
            )
        setattr(owner, name, self.value(trainer.current_epoch / trainer.max_epochs))
