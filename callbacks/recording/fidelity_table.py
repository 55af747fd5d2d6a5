"""What compression leaves of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.console import print_table
from callbacks.errors import require
from callbacks.files import write_table
from callbacks.recording.wandb_logger import ResilientWandbLogger

SHOWN = ("psnr", "lesion_psnr", "ssim", "mae", "contrast_before", "contrast_after")
TERMINAL = {"lesion_psnr": "in lesion", "contrast_before": "before", "contrast_after": "after"}


class FidelityTable(Callback):
    """Shows quality and contrast per class after a training and a test.

    The contrast between lesion and surrounding skin is that of the originals and of the
    reconstructions, over the images that have both. All that was measured of each test image goes
    to ``test_fidelity.csv`` in the run folder, the table per class to W&B.

    Args:
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.dirpath = Path(dirpath)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require(pl_module, "codec", self)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measured = self.show(trainer, pl_module, "test")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if measured is None or len(measured) < (data.table["split"] == "test").sum():
            return
        self.dirpath.mkdir(parents=True, exist_ok=True)
        measured.insert(0, "image_id", data.table.loc[measured.index, "image_id"])
        file = self.dirpath / "test_fidelity.csv"
        write_table(file, measured)
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.keep_files([file], self.dirpath.parents[1])

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> pd.DataFrame | None:
        """Prints the table; returns a row per image, by its index in the data's table."""
        metric: Any = pl_module.metrics[split]  # type: ignore[index]
        if not trainer.is_global_zero or not metric.update_called:
            return None
        computed = metric.compute()
        index, labels = computed["index"].tolist(), computed["label"].tolist()
        values = computed["measured"].cpu().numpy()
        measured = pd.DataFrame(values, columns=list(metric.columns), index=index)
        measured.insert(0, "dx", [metric.class_names[label] for label in labels])
        table = per_class(measured, metric.class_names)
        title = f"What compression leaves, {split}; contrast to skin before and after"
        print_table(table.rename(columns=TERMINAL), title)
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.log_media({f"{split}/fidelity": wandb.Table(dataframe=table)})
        return measured


def per_class(measured: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Means of each class, and in the last row of all images; what nobody has is left out."""
    means = measured.groupby("dx")[list(SHOWN)].mean().reindex(classes)
    means.loc["all"] = measured[list(SHOWN)].mean()
    means.insert(0, "images", [*measured["dx"].value_counts().reindex(classes), len(measured)])
    means["images"] = means["images"].fillna(0).astype(int)
    return means.dropna(axis="columns", how="all").reset_index(names="class")
