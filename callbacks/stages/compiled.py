"""Compilation of the training step."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class Compile(Callback):
    """Compile the training step with ``torch.compile``.

    Weights and checkpoints are the same with and without it, so a run may resume either way.
    Validation and test are not compiled, because callbacks look into the network's layers there.

    Args:
        mode: Mode of ``torch.compile``. ``reduce-overhead`` uses CUDA graphs, which save small
            networks most of the CPU's work.
        backend: Backend of ``torch.compile``.
        dynamic: Whether sizes may vary without compiling again. By default torch decides at the
            second size.
    """

    def __init__(
        self, mode: str | None = None, backend: str = "inductor", dynamic: bool | None = None
    ) -> None:
        self.mode = mode
        self.backend = backend
        self.dynamic = dynamic

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Attributes of the instance: a compiled module would have other names of weights.
        pl_module.log = torch.compiler.disable(pl_module.log)  # type: ignore[method-assign]
        pl_module.training_step = torch.compile(  # type: ignore[method-assign]
            pl_module.training_step, mode=self.mode, backend=self.backend, dynamic=self.dynamic
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module.log, pl_module.training_step
