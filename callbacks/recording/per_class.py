"""Metrics of each class: a table on the terminal, a confusion matrix on W&B."""

from __future__ import annotations

from typing import Any

import pandas as pd
import wandb
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.console import in_words, print_table
from callbacks.looker import Looker

CLASS_METRICS = ("precision", "recall", "f1", "support")
OVERALL_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")


class PerClass(Looker):
    """Print precision, recall, F1 and support of each class after training and after a test.

    The module itself logs these numbers. The confusion matrix goes to W&B, as
    ``val/confusion_matrix`` and ``test/confusion_matrix``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0  # completed at the last validation

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.epochs = trainer.current_epoch + 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.epochs:
            self.show(trainer, pl_module, "val", f"Validation, epoch {self.epochs}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        of = f" of {trainer.ckpt_path}" if trainer.ckpt_path else ""  # else of weights in memory
        self.show(trainer, pl_module, "test", f"Test{of}")

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str, title: str) -> None:
        metric = self.metric(pl_module, split)
        if not trainer.is_global_zero or not metric.update_called:
            return
        computed, names = metric.compute(), metric.class_names
        synthetic = self.data(trainer).synthetic
        print_table(_table(computed, names), f"{title} (SYNTHETIC DATA)" if synthetic else title)
        print(in_words({name: computed[name].item() for name in OVERALL_METRICS}))
        if len(names) == 2:
            print(f"{names[1]} against {names[0]}: {in_words(_binary(computed, *names))}")
        for dashboard in self.dashboards(trainer):
            dashboard.log_media({f"{split}/confusion_matrix": _chart(computed, names)})


def _table(computed: dict[str, Tensor], names: list[str]) -> pd.DataFrame:
    rows = [[name, *(computed[f"{m}_{name}"].item() for m in CLASS_METRICS)] for name in names]
    means = [computed[f"macro_{m}"].item() for m in CLASS_METRICS[:3]]
    rows.append(["macro", *means, computed["label"].numel()])
    return pd.DataFrame(rows, columns=["class", *CLASS_METRICS]).astype({"support": int})


def _binary(computed: dict[str, Tensor], negative: str, positive: str) -> dict[str, float]:
    return {
        "sensitivity": computed[f"recall_{positive}"].item(),
        "specificity": computed[f"recall_{negative}"].item(),
        "PPV": computed[f"precision_{positive}"].item(),
        "NPV": computed[f"precision_{negative}"].item(),
    }


def _chart(computed: dict[str, Tensor], names: list[str]) -> Any:
    label, prediction = computed["label"], computed["probability"].argmax(1)
    return wandb.plot.confusion_matrix(
        y_true=label.tolist(), preds=prediction.tolist(), class_names=names
    )
