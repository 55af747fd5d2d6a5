"""The images of a data set with their classes and splits, without their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pytorch_lightning import LightningDataModule

from datamodules.cache import user_cache
from datamodules.classes import Classes, read_yaml
from datamodules.data_folder import DataFolder
from datamodules.memory_map import memory_map
from datamodules.release import Release
from datamodules.shard_folder import SHARDS, ShardFolder
from datamodules.splits import SPLITS, Split
from datamodules.table_columns import DATASET
from datamodules.table_folder import TableFolder


def open_folder(root: Path) -> DataFolder:
    """The data set in a folder: what its ``dataset.yaml`` describes, or else HAM10000."""
    if not (root / DATASET).exists():
        return Release(root)
    return ShardFolder(root) if SHARDS in read_yaml(root / DATASET) else TableFolder(root)


class LabeledImages(LightningDataModule):
    """The images of a data set with their classes, counts and splits.

    Args:
        root: Folder of the data set.
        split: Assignment of the lesions to the training, validation and test split.
        task: Classes to tell apart, see :class:`~datamodules.lesion_data.LesionData`.
    """

    def __init__(self, root: Path, split: Split, task: str) -> None:
        super().__init__()
        self.root = Path(root).expanduser()
        self.split = split
        self.task = task

    @cached_property
    def folder(self) -> DataFolder:
        """The folder of the data set, opened."""
        return open_folder(self.root)

    @property
    def classes(self) -> Classes:
        """All classes of the data set, with their titles, groups and tasks."""
        return self.folder.classes

    @property
    def taxonomy(self) -> Mapping[str, Any]:
        """Tree of the classes; empty if the data set has none."""
        return self.classes.taxonomy

    @property
    def descriptions(self) -> Mapping[str, str]:
        """A phrase about the looks of each class, where known."""
        return self.classes.descriptions

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of the task, in the order of the labels."""
        return self.classes.of_task(self.task)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per image of the task, with its ``label`` and its ``split``."""
        everything = self.folder.table
        labels = _numbers(everything["dx"], self.class_names)
        known = labels >= 0
        table = everything if known.all() else everything[known]  # without a copy, if possible
        return table.assign(label=labels[known], split=self._splits(table))

    def _splits(self, table: pd.DataFrame) -> pd.Series[str]:
        """The split of each row, computed once where the data folder keeps its table."""
        if self.folder.key is None or self.split.key is None:
            return self.split(table)
        key = f"{self.folder.key}\n{self.class_names}\n{self.split.key}"
        names = np.array(["", *SPLITS], dtype=object)

        def fill(rows: np.ndarray) -> None:
            rows[:] = _numbers(self.split(table), names.tolist())

        file = f"split-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"
        numbers = memory_map(self.root / "cache", file, (len(table),), np.uint8, fill, user_cache())
        return pd.Series(names[numbers], table.index, dtype="str")

    @property
    def synthetic(self) -> bool:
        """Whether the images are synthetic, so that no result applies to real skin."""
        return self.folder.synthetic

    @property
    def group(self) -> str:
        """Meaning of the column ``lesion_id``: ``lesion``, ``patient`` or ``image``."""
        return self.folder.group

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training images per class, which the command line passes to losses that ask for them."""
        return self.class_table["train"].tolist()

    @property
    def shots(self) -> dict[str, list[str]]:
        """Classes with many, medium and few training images; empty if not defined."""
        counts = self.class_table["train"]
        return self.classes.shot_groups({str(name): int(n) for name, n in counts.items()})

    @cached_property
    def class_table(self) -> pd.DataFrame:
        """Number of images per class (rows) and split (columns)."""
        counts = pd.crosstab(self.table["dx"], self.table["split"])
        return counts.reindex(index=list(self.class_names), columns=list(SPLITS), fill_value=0)


def _numbers(names: pd.Series[str], order: Sequence[str]) -> np.ndarray:
    """The position of each name in ``order``, -1 for others, without a Python object per name."""
    positions = pc.index_in(pa.array(names), pa.array(order, pa.array(names).type))
    return np.asarray(positions.fill_null(-1), dtype=np.int64)
