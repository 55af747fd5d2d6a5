"""The flat classifier, and what all classifiers share: evaluation and optimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from lightning_modules.metrics import DiagnosticMetrics


class Classifier(LightningModule):
    """Trains ``network`` with ``criterion``; other ways to learn override ``training_step``.

    Args:
        network: Images (B, 3, H, W) in [0, 1] to logits (B, K).
        criterion: Logits (B, K) and labels (B,), or soft labels (B, K), to a scalar.
        optimizer: Parameters to optimizer.
        lr_scheduler: Optimizer and total number of steps to a schedule, advanced every step.
        mix: Batch to batch, with mixed ``image`` and soft ``label``; in training only.
        class_names: Names of the K classes; the command line takes them from the data.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        optimizer: OptimizerCallable,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        mix: nn.Module | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.network, self.criterion, self.mix = network, criterion, mix or nn.Identity()
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.metrics = nn.ModuleDict({s: DiagnosticMetrics(class_names) for s in ("val", "test")})
        self.losses = nn.ModuleDict({split: MeanMetric() for split in self.metrics})

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

    def evaluate(self, batch: dict[str, Tensor], split: str) -> None:
        logits = self(batch["image"])
        self.metrics[split].update(logits, batch["label"], batch["index"])
        self.losses[split].update(nn.functional.cross_entropy(logits, batch["label"]))

    def on_validation_epoch_end(self) -> None:
        self.report("val")

    def on_test_epoch_end(self) -> None:
        self.report("test")

    def report(self, split: str) -> None:
        """Logs the scalars of a split; callbacks read the rest from ``metrics[split].compute()``."""
        computed = self.metrics[split].compute() | {"loss": self.losses[split].compute()}
        scalars = {f"{split}/{k}": v for k, v in computed.items() if v.ndim == 0}
        self.log_dict(scalars)
        self.losses[split].reset()

    def on_validation_epoch_start(self) -> None:
        self.metrics["val"].reset()

    def on_test_epoch_start(self) -> None:
        self.metrics["test"].reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(p for p in self.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        scheduler: dict[str, Any] = {
            "scheduler": self.make_scheduler(optimizer, total),
            "interval": "step",
        }
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
