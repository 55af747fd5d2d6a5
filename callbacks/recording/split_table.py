"""Record of the split: which images train, validate and test."""

from __future__ import annotations

import pandas as pd
import yaml
from pytorch_lightning import LightningModule, Trainer

from callbacks.atomic_files import write_table, write_text
from callbacks.console import print_table
from callbacks.errors import RunError
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder

SPLIT_COLUMNS = ["image_id", "lesion_id", "dx", "split"]


class SplitTable(RunCallback):
    """Print the images per class and split, and record them in the run folder.

    ``split.csv`` lists the images of each split, and ``classes.yaml`` what is known about the
    classes. A resumed or evaluated run must have the split that was recorded at its start.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        data = self.data(trainer)
        run = RunFolder(self.folder)
        file = run.split_file
        split = data.table.loc[data.table["split"] != "", SPLIT_COLUMNS].reset_index(drop=True)
        if file.exists() and not _same(split, run.split()):
            rename = ", or give the run another --name" if stage == "fit" else ""
            raise RunError(
                f"{file} records another split than the data in {data.root} give now: "
                f"use the data and the commit of this run{rename}."
            )
        if stage == "fit" and trainer.is_global_zero:
            if not file.exists() and not self.is_trial(trainer):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_table(file, split)
                classes = yaml.safe_dump(data.classes.record(), sort_keys=False, allow_unicode=True)
                write_text(run.classes_file, classes)
            counts = data.class_table.copy()
            counts.loc["all"] = counts.sum()
            print_table(counts.reset_index(names="class"), f"Images of {data.root}")
            if data.synthetic:
                self.mark_synthetic(trainer)

    def mark_synthetic(self, trainer: Trainer) -> None:
        """Mark a run on synthetic images, so that nobody takes its results for real ones."""
        print("SYNTHETIC DATA: results on generated images say nothing about real skin.")
        for dashboard in self.dashboards(trainer):
            dashboard.add_tag("synthetic")


def _same(split: pd.DataFrame, recorded: pd.DataFrame) -> bool:
    # Lesions are not compared: when two ids are joined into one, no image may have moved.
    return split.drop(columns="lesion_id").equals(recorded.drop(columns="lesion_id"))
