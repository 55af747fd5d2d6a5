"""How each class fares: a table on the terminal, confusion matrices on the dashboard."""

from __future__ import annotations

from typing import Any

import pandas as pd
import wandb
from pytorch_lightning import LightningModule, Trainer

from callbacks.console import in_words, print_table
from callbacks.looker import Looker
from callbacks.recording.wandb_logger import ResilientWandbLogger

COLUMNS = ("precision", "recall", "f1", "support")
OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")


class PerClass(Looker):
    """Shows precision, recall, F1 and support of each class, and the confusion matrix.

    The scalars themselves are logged by the module; this prints them after the last validation
    and after a test, and sends the confusion matrix of each to W&B.
    """

    epoch = 0  # of the last validation, from 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.epoch = trainer.current_epoch + 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.epoch:
            self.show(trainer, pl_module, "val", f"Validation, epoch {self.epoch}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "test", f"Test of {trainer.ckpt_path}")

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str, title: str) -> None:
        metric: Any = pl_module.metrics[split]  # type: ignore[index]
        if not trainer.is_global_zero or not metric.update_called:
            return
        computed, names = metric.compute(), metric.class_names
        rows = [[name, *(computed[f"{c}_{name}"].item() for c in COLUMNS)] for name in names]
        support = computed["label"].numel()
        means = [computed[f"macro_{c}"].item() for c in COLUMNS[:3]]
        table = pd.DataFrame([*rows, ["macro", *means, support]], columns=["class", *COLUMNS])
        table["support"] = table["support"].astype(int)
        synthetic = trainer.datamodule.synthetic  # type: ignore[attr-defined]
        print_table(table, f"{title} (SYNTHETIC DATA)" if synthetic else title)
        print(in_words({name: computed[name].item() for name in OVERALL}))
        if len(names) == 2:
            print(f"{names[1]} against {names[0]}: {in_words(_binary(computed, *names))}")
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.log_media({f"{split}/confusion_matrix": _chart(computed, names)})


def _binary(computed: dict[str, Any], negative: str, positive: str) -> dict[str, float]:
    return {
        "sensitivity": computed[f"recall_{positive}"].item(),
        "specificity": computed[f"recall_{negative}"].item(),
        "PPV": computed[f"precision_{positive}"].item(),
        "NPV": computed[f"precision_{negative}"].item(),
    }


def _chart(computed: dict[str, Any], names: list[str]) -> Any:
    label, prediction = computed["label"], computed["probability"].argmax(1)
    return wandb.plot.confusion_matrix(
        y_true=label.tolist(), preds=prediction.tolist(), class_names=names
    )
