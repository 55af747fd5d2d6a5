"""Annealing of a number of the model over the epochs."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.errors import RunError


class Anneal(Callback):
    """Move an attribute of the model linearly from ``start`` to ``end``, epoch by epoch.

    With ``begin`` = ``until`` the value changes in a step, at the latest before the last epoch. It
    depends on the epoch alone, so that a resumed run continues with the right value.

    Args:
        attribute: Path of the attribute in the module, such as ``criterion.quantile``.
        start: Value at ``begin``.
        end: Value from ``until`` on.
        begin: Share of the epochs after which the value starts to move, in [0, 1].
        until: Share of the epochs after which the value stays at ``end``, in [``begin``, 1].
        before: Value before ``begin``, for a warm-up; ``start`` if None.
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
            raise RunError(
                f"Anneal got begin={begin} and until={until}: set 0 <= begin <= until <= 1."
            )
        self.attribute = attribute
        self.start = start
        self.end = end
        self.begin = begin
        self.until = until
        self.before = start if before is None else before

    def value(self, done: float, last: float = 1.0) -> float:
        """The value after a share ``done`` of the epochs, the last of which follows ``last``."""
        step = self.begin == self.until
        if done < (min(self.begin, last) if step else self.begin):
            return self.before
        if step or done >= self.until:
            return self.end
        moved = (done - self.begin) / (self.until - self.begin)
        return self.start + (self.end - self.start) * moved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # An epoch that is resumed in its middle has no on_train_epoch_start.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise RunError(
                f"Anneal of {self.attribute} needs the number of epochs: set --trainer.max_epochs."
            )
        owner: Any = pl_module
        *owners, name = self.attribute.split(".")
        for part in owners:
            owner = getattr(owner, part, None)
        if not hasattr(owner, name):
            raise RunError(
                f"{type(pl_module).__name__} has no {self.attribute}: correct the attribute of "
                "Anneal."
            )
        last = (trainer.max_epochs - 1) / trainer.max_epochs
        setattr(owner, name, self.value(trainer.current_epoch / trainer.max_epochs, last))
