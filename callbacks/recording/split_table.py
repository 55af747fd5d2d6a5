"""Which image trained, selected or tested: recorded once, and held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.console import print_table
from callbacks.errors import RunError
from callbacks.files import write_table
from callbacks.recording.wandb_logger import ResilientWandbLogger

COLUMNS = ["image_id", "lesion_id", "dx", "split"]


class SplitTable(Callback):
    """Prints the class table of each split, and writes them to ``split.csv`` in the run folder.

    A run that goes on, or is evaluated, must have the split it was started with.

    Args:
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.path = Path(dirpath, "split.csv")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        split = data.table.loc[data.table["split"] != "", COLUMNS].reset_index(drop=True)
        if self.path.exists() and not _same(split, pd.read_csv(self.path)):
            anew = ", or give the run another --name" if stage == "fit" else ""
            raise RunError(
                f"{self.path} records another split than the data in {data.root} give now: "
                f"use the data and the commit of this run{anew}."
            )
        if stage == "fit" and trainer.is_global_zero:
            if not self.path.exists() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_table(self.path, split)
            counts = data.class_table
            counts.loc["all"] = counts.sum()
            print_table(counts.reset_index(names="class"), f"Images of {data.root}")
            if data.synthetic:
                mark_synthetic(trainer)


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    # Not by lesion: when two ids are joined into one, every image may still be where it was.
    return one.drop(columns="lesion_id").equals(other.drop(columns="lesion_id"))


def mark_synthetic(trainer: Trainer) -> None:
    """Keeps a run on drawings from being taken for a real one."""
    print("SYNTHETIC DATA: these are drawings, and no result says anything about skin.")
    for logger in trainer.loggers:
        if isinstance(logger, ResilientWandbLogger):
            logger.add_tag("synthetic")
