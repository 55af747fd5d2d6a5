"""Curves, bars and a table of predictions on the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import wandb
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from callbacks.looker import Looker
from callbacks.looking.saliency import first_lesions
from callbacks.recording.wandb_logger import ResilientWandbLogger

POINTS = 200  # of a curve; more are not seen
BARS = ("precision", "recall", "f1")


class Charts(Looker):
    """Sends W&B, after a training and after a test, what one number per epoch does not tell.

    ``val/pr_curve`` and ``val/roc_curve`` have a line for each class against the others,
    ``val/recall_bars`` and its like a bar for each, ``val/predictions`` is a table of the same
    images every time: image, class, decision, probabilities. Without W&B it does nothing.

    Args:
        images_per_class: Rows of the table.
    """

    def __init__(self, images_per_class: int = 8) -> None:
        self.images_per_class = images_per_class

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "test")

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        metric: Any = pl_module.metrics[split]  # type: ignore[index]
        loggers = [x for x in trainer.loggers if isinstance(x, ResilientWandbLogger)]
        if not trainer.is_global_zero or not metric.update_called or not loggers:
            return
        computed, names = metric.compute(), metric.class_names
        if not pl_module.diagnoses:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        media = curves(computed["probability"].cpu(), computed["label"].cpu(), names)
        media |= {f"{metric}_bars": bars(computed, names, metric) for metric in BARS}
        media["predictions"] = predictions(computed, names, data, self.images_per_class)
        for logger in loggers:
            logger.log_media({f"{split}/{name}": chart for name, chart in media.items()})


def curves(probability: Tensor, label: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Precision over recall, and recall over the false-positive rate, of each class that occurs."""
    roc, pr, occurring = [], [], []
    for c, name in enumerate(names):
        target = (label == c).long()
        if target.any() and not target.all():
            occurring.append(name)
            false, true, _ = binary_roc(probability[:, c], target)
            precision, recall, _ = binary_precision_recall_curve(probability[:, c], target)
            roc.append((thinned(false), thinned(true)))
            pr.append((thinned(recall), thinned(precision)))
    if not occurring:  # all images are of one class
        return {}
    return {
        "pr_curve": _lines(pr, occurring, "Precision over recall", "recall"),
        "roc_curve": _lines(roc, occurring, "ROC", "false-positive rate"),
    }


def thinned(values: Tensor) -> list[float]:
    """At most ``POINTS`` of the values, the first and the last among them."""
    kept = torch.linspace(0, len(values) - 1, min(POINTS, len(values))).round().long()
    thin: list[float] = values[kept].tolist()
    return thin


def bars(computed: dict[str, Any], names: Sequence[str], metric: str) -> Any:
    rows: Any = [[name, computed[f"{metric}_{name}"].item()] for name in names]
    return wandb.plot.bar(wandb.Table(["class", metric], rows), "class", metric, title=metric)


def predictions(
    computed: dict[str, Any], names: Sequence[str], data: Any, images_per_class: int
) -> wandb.Table:
    """A row for each of the first lesions of each class."""
    position = {index: at for at, index in enumerate(computed["index"].tolist())}
    rows = first_lesions(data.table.loc[list(position)], images_per_class)
    table = wandb.Table(["id", "image", "class", "decision", "right", *names])
    for i, image in zip(rows.index, data.gather(rows.index)["image"], strict=True):
        probability = computed["probability"][position[i]]
        true, decided = rows.at[i, "dx"], names[int(probability.argmax())]
        chances = [round(p, 4) for p in probability.tolist()]
        photo = wandb.Image(image.permute(1, 2, 0).numpy())
        table.add_data(rows.at[i, "image_id"], photo, true, decided, true == decided, *chances)
    return table


def _lines(
    lines: Sequence[tuple[list[float], list[float]]], names: list[str], title: str, x: str
) -> Any:
    xs, ys = [line[0] for line in lines], [line[1] for line in lines]
    return wandb.plot.line_series(xs, ys, keys=names, title=title, xname=x)
