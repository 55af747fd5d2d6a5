"""The flat classifier, and what all classifiers share: evaluation and optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from lightning_modules.errors import ModelError
from lightning_modules.metrics import DiagnosticMetrics


class Classifier(LightningModule):
    """Trains ``network`` with ``criterion``; other ways to learn override ``training_step``.

    Logs ``train/loss``, of the first process's share of the batch, and the metrics of
    :class:`~lightning_modules.metrics.DiagnosticMetrics` under ``val/`` and ``test/``.

    Args:
        network: Images (B, 3, H, W) in [0, 1] to logits (B, K).
        criterion: Logits (B, K) and labels (B,), or soft labels (B, K), to a scalar.
        optimizer: Parameters to optimizer.
        lr_scheduler: Optimizer and total number of steps to a schedule, advanced every step.
        mix: Batch to batch, with mixed ``image`` and soft ``label``; in training only.
        lr_factors: Name of a submodule to what the learning rate of its parameters is multiplied
            by; of several that fit, the longest name counts.
        class_names: Names of the K classes; the command line takes them from the data.
        batches_per_epoch: Of the training; the command line takes it from the data.
    """

    mixes = True  # whether ``training_step`` calls ``mix``

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        optimizer: OptimizerCallable,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        mix: nn.Module | None = None,
        lr_factors: Mapping[str, float] | None = None,
        class_names: Sequence[str] = (),
        batches_per_epoch: int = 1,
    ) -> None:
        super().__init__()
        if mix is not None and not self.mixes:
            raise ModelError(f"{type(self).__name__} learns from no mixes: leave out model.mix.")
        self.network, self.criterion, self.mix = network, criterion, mix or nn.Identity()
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.lr_factors = lr_factors or {}
        self.batches_per_epoch = batches_per_epoch
        self.metrics: Any = nn.ModuleDict(
            {split: DiagnosticMetrics(class_names) for split in ("val", "test")}
        )
        self.losses: Any = nn.ModuleDict({split: MeanMetric() for split in self.metrics})

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        loss = self.criterion(self(batch["image"]), batch["label"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Probabilities (B, K)."""
        return self(batch["image"]).float().softmax(dim=1)

    def mixed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mixes a batch of pairs as in training, to look at what the network makes of it.

        Args:
            batch: Images in even rows, each followed by one that it may be mixed with.

        Returns:
            Logits (n, K) and labels (n,), or soft labels (n, K), of the mixes of the even rows.
        """
        batch = self.mix(batch)
        return self(batch["image"])[::2], batch["label"][::2]

    def evaluate(self, batch: dict[str, Tensor], split: str) -> None:
        logits = self(batch["image"])
        self.metrics[split].update(logits, batch["label"], batch["index"])
        self.losses[split].update(F.cross_entropy(logits, batch["label"], reduction="none"))

    def on_validation_epoch_end(self) -> None:
        self.report("val")

    def on_test_epoch_end(self) -> None:
        self.report("test")

    def report(self, split: str) -> None:
        """Logs the scalars of a split; callbacks read more from ``metrics[split].compute()``."""
        computed = self.metrics[split].compute() | {"loss": self.losses[split].compute()}
        scalars = {f"{split}/{k}": v for k, v in computed.items() if v.ndim == 0}
        self.log_dict(scalars)

    def on_validation_epoch_start(self) -> None:
        self.begin("val")

    def on_test_epoch_start(self) -> None:
        self.begin("test")

    def begin(self, split: str) -> None:
        self.metrics[split].reset()
        self.losses[split].reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if not (groups := self.parameter_groups()):
            raise ModelError("There is nothing to train: all of this model is frozen or fixed.")
        optimizer = self.make_optimizer([{"params": own} for own in groups.values()])
        for group, factor in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= factor
        if self.make_scheduler is None:
            return optimizer
        steps = self.steps
        try:
            scheduler = self.make_scheduler(optimizer, steps)
        except (TypeError, ValueError) as error:
            raise ModelError(
                "model.lr_scheduler must be a schedule over the steps of the training, such as "
                f"lightning_modules.schedules.WarmupCosine; this one takes no number of steps: "
                f"{error}."
            ) from error
        schedule: LRSchedulerConfigType = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """The parameters to train, by the factor of their learning rate."""
        if unknown := self.lr_factors.keys() - dict(self.named_modules()):
            raise ModelError(f"lr_factors names {min(unknown)!r}, which the model does not have.")
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                fitting = [m for m in self.lr_factors if name.startswith(f"{m}.")]
                factor = self.lr_factors[max(fitting, key=len)] if fitting else 1.0
                groups.setdefault(factor, []).append(parameter)
        return groups

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        # Not the trainer's estimate: for it the trainer would load its data, before a run that
        # goes on knows how far it is.
        trainer, batches = self.trainer, self.batches_per_epoch
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        if per_epoch < 1:
            raise ModelError(
                f"trainer.limit_train_batches={limit} leaves none of {self.batches_per_epoch} "
                "batches: set a number of batches from 1, or a larger share."
            )
        bounds = (per_epoch * (trainer.max_epochs or 0), trainer.max_steps)
        if not (ends := [bound for bound in bounds if bound > 0]):
            raise ModelError("A schedule needs an end: set trainer.max_epochs or max_steps.")
        return min(ends)
