"""Freezing of parts of a network."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer


class Freeze(Callback):
    """Freeze submodules: their parameters are not trained.

    Args:
        modules: Dotted names of the submodules, such as ``network.model``.
        but: Dotted names of submodules below them that are trained, such as the classifier.
        shift_batch_norm: Whether the running statistics of frozen batch norms follow the data, as
            in MiSLAS's shifted batch norm (https://arxiv.org/abs/2104.00466, section 3.4).
            Otherwise frozen submodules are in evaluation mode, dropout included.
    """

    def __init__(
        self, modules: list[str], but: list[str] | None = None, shift_batch_norm: bool = False
    ) -> None:
        self.modules = modules
        self.but = but or []
        self.shift_batch_norm = shift_batch_norm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for name in self.modules:
            pl_module.get_submodule(name).requires_grad_(False)
        for name in self.but:
            pl_module.get_submodule(name).requires_grad_(True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not at each epoch's start: an epoch that is resumed in its middle has none.
        if not self.shift_batch_norm:
            for name in self.modules:
                pl_module.get_submodule(name).eval()
            for name in self.but:
                pl_module.get_submodule(name).train()
