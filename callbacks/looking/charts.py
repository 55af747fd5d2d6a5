"""Curves, bars and a table of predictions on W&B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import wandb
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from callbacks.looker import Looker
from callbacks.looking.attention_maps import first_lesions
from callbacks.run_callback import Data

CURVE_POINTS = 200  # at most; more are not visible
BARS = ("precision", "recall", "f1")


class Charts(Looker):
    """Draw curves, bars and a table of predictions on W&B after training and after a test.

    ``val/pr_curve`` and ``val/roc_curve`` have a line for each class against the others,
    ``val/precision_bars``, ``val/recall_bars`` and ``val/f1_bars`` a bar for each class.
    ``val/predictions`` is a table of the same images every time, with class, decision and
    probabilities. After a test the names start with ``test/``.

    Args:
        images_per_class: Number of images per class in the table, at least 0.
    """

    def __init__(self, images_per_class: int = 8) -> None:
        super().__init__()
        self.images_per_class = images_per_class

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "test")

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        metric, dashboards = self.metric(pl_module, split), self.dashboards(trainer)
        if not trainer.is_global_zero or not metric.update_called or not dashboards:
            return
        computed, names = metric.compute(), metric.class_names
        if not pl_module.diagnoses:  # a codec does not classify
            return
        media = curves(computed["probability"].cpu(), computed["label"].cpu(), names)
        media |= {f"{metric}_bars": bars(computed, names, metric) for metric in BARS}
        media["predictions"] = predictions(
            computed, names, self.data(trainer), self.images_per_class
        )
        for dashboard in dashboards:
            dashboard.log_media({f"{split}/{name}": chart for name, chart in media.items()})


def curves(probability: Tensor, label: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Precision-recall and ROC curves of each class that has images."""
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
    """Thin values to at most ``CURVE_POINTS``, the first and the last among them."""
    index = torch.linspace(0, len(values) - 1, min(CURVE_POINTS, len(values))).round().long()
    thin: list[float] = values[index].tolist()
    return thin


def bars(computed: dict[str, Tensor], names: Sequence[str], metric: str) -> Any:
    """Bar chart of a metric, one bar per class."""
    rows: Any = [[name, computed[f"{metric}_{name}"].item()] for name in names]
    return wandb.plot.bar(wandb.Table(["class", metric], rows), "class", metric, title=metric)


def predictions(
    computed: dict[str, Tensor], names: Sequence[str], data: Data, images_per_class: int
) -> wandb.Table:
    """Table of predictions for the first lesions of each class."""
    position = {index: at for at, index in enumerate(computed["index"].tolist())}
    rows = first_lesions(data.table.loc[list(position)], images_per_class)
    table = wandb.Table(["id", "image", "class", "decision", "right", *names])
    for i, image in zip(rows.index, data.gather(rows.index.tolist())["image"], strict=True):
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
