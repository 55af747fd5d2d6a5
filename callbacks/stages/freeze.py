"""Parts of a network that a stage leaves as they are."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer


class Freeze(Callback):
    """Trains nothing in the named submodules.

    Args:
        modules: Dotted names, such as ``network.model``.
        but: Dotted names below them that are trained all the same, such as the classifier.
        shift_batch_norm: Whether the running statistics of frozen batch norms still follow the
            data, as MiSLAS's shifted batch norm does (https://arxiv.org/abs/2104.00466,
            section 3.4). Otherwise frozen modules are in evaluation mode, dropout included.
    """

    def __init__(
        self, modules: list[str], but: list[str] | None = None, shift_batch_norm: bool = False
    ) -> None:
        self.modules, self.but, self.shift_batch_norm = modules, but or [], shift_batch_norm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for name, trained in [*((n, False) for n in self.modules), *((n, True) for n in self.but)]:
            pl_module.get_submodule(name).requires_grad_(trained)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not per epoch: a run that goes on within an epoch has no start of it.
        if not self.shift_batch_norm:
            for name in self.modules:
                pl_module.get_submodule(name).eval()
            for name in self.but:
                pl_module.get_submodule(name).train()
