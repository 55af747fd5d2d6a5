"""Table of what compression preserves of each class."""

from __future__ import annotations

import pandas as pd
import wandb
from pytorch_lightning import LightningModule, Trainer

from callbacks.atomic_files import write_table
from callbacks.console import print_table
from callbacks.errors import require
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder

METRICS = ("psnr", "lesion_psnr", "ssim", "mae", "contrast_before", "contrast_after")
HEADINGS = {"lesion_psnr": "in lesion", "contrast_before": "before", "contrast_after": "after"}


class FidelityTable(RunCallback):
    """Print image quality and contrast per class after training and after a test.

    The contrast between lesion and surrounding skin is given for the originals and for the
    reconstructions, over the images that have both lesion and skin. All measurements of each test
    image go to ``test_fidelity.csv`` in the run folder, the table per class to W&B as
    ``val/fidelity`` and ``test/fidelity``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require(pl_module, "codec", self)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measured = self.show(trainer, pl_module, "test")
        table = self.data(trainer).table
        if measured is None or len(measured) < (table["split"] == "test").sum():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        measured.insert(0, "image_id", table.loc[measured.index, "image_id"])
        file = RunFolder(self.folder).fidelity_file
        write_table(file, measured)
        for dashboard in self.dashboards(trainer):
            dashboard.keep_files([file], self.folder.parents[1])

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> pd.DataFrame | None:
        """Print the table per class.

        Returns:
            The measurements, one row per image, indexed as the table of the data.
        """
        metric = self.metric(pl_module, split)
        if not trainer.is_global_zero or not metric.update_called:
            return None
        computed = metric.compute()
        index, labels = computed["index"].tolist(), computed["label"].tolist()
        values = computed["measured"].cpu().numpy()
        measured = pd.DataFrame(values, columns=list(metric.columns), index=index)
        measured.insert(0, "dx", [metric.class_names[label] for label in labels])
        table = per_class(measured, metric.class_names)
        title = f"Fidelity of compression, {split}; contrast to skin before and after"
        print_table(table.rename(columns=HEADINGS), title)
        for dashboard in self.dashboards(trainer):
            dashboard.log_media({f"{split}/fidelity": wandb.Table(dataframe=table)})
        return measured


def per_class(measured: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Mean measurements of each class and, in the last row, of all images.

    Measurements that no image has are left out.
    """
    means = measured.groupby("dx")[list(METRICS)].mean().reindex(classes)
    means.loc["all"] = measured[list(METRICS)].mean()
    means.insert(0, "images", [*measured["dx"].value_counts().reindex(classes), len(measured)])
    means["images"] = means["images"].fillna(0).astype(int)
    return means.dropna(axis="columns", how="all").reset_index(names="class")
