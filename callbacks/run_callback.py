"""Base of callbacks that use the run folder, the data, the metrics or the dashboards of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.recording.wandb_logger import ResilientWandbLogger


class Classes(Protocol):
    """The attributes of the classes of a data set that callbacks use."""

    titles: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        """The contents of a YAML file that describes the classes."""


class Data(Protocol):
    """The attributes of a datamodule that callbacks use."""

    seed: int
    batch_size: int
    root: Path
    synthetic: bool
    group: str
    table: pd.DataFrame
    class_table: pd.DataFrame
    class_names: Sequence[str]
    class_counts: Sequence[int]
    shots: Mapping[str, Sequence[str]]
    classes: Classes

    def gather(self, index: Sequence[int]) -> dict[str, Tensor]:
        """The images in some rows of the table, as one batch."""


class RunCallback(Callback):
    """Base of callbacks that use the folder, data, metrics or dashboards of a run.

    Args:
        dirpath: Run folder; set by the command line.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.folder = Path(dirpath)

    @staticmethod
    def data(trainer: Trainer) -> Data:
        """The datamodule of a run."""
        data: Data = trainer.datamodule  # type: ignore[attr-defined]
        return data

    @staticmethod
    def photos(trainer: Trainer) -> Any:
        """The data set of the images to predict."""
        return trainer.predict_dataloaders.dataset  # type: ignore[union-attr]

    @staticmethod
    def metric(pl_module: LightningModule, split: str) -> Any:
        """The metrics of a split ("val" or "test"); ``compute`` covers all processes."""
        return pl_module.metrics[split]  # type: ignore[index]

    @staticmethod
    def checkpoint(trainer: Trainer) -> dict[str, Any] | None:
        """File, epoch and optimizer step of the checkpoint in use; None if there is none."""
        if trainer.ckpt_path is None:
            return None
        state = torch.load(trainer.ckpt_path, map_location="cpu", mmap=True, weights_only=True)
        step = state["global_step"]
        return {"file": str(trainer.ckpt_path), "epoch": state["epoch"], "step": step}

    @staticmethod
    def dashboards(trainer: Trainer) -> list[ResilientWandbLogger]:
        """The W&B loggers of a run."""
        return [logger for logger in trainer.loggers if isinstance(logger, ResilientWandbLogger)]

    @staticmethod
    def is_trial(trainer: Trainer) -> bool:
        """Whether this is a trial (``fast_dev_run``), which must not leave files."""
        return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
