"""A folder of images with what is known about them: a release of HAM10000, or a table."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd

from datamodules.cache import cached_arrays, read_mask
from datamodules.classes import Classes
from datamodules.errors import DataError
from datamodules.layout import OFFICIAL, SYNTHETIC

AT_ONCE = 2**16  # names that are strings of Python at the same time


class DataFolder(ABC):
    """Base of the data folders: their classes, their table and the files of their images.

    Args:
        root: The folder.
    """

    key: str | None = None  # text that differs between different tables; None if not known
    images_per_shard: int | None = None  # None if the images are not in shards
    worker_context: BaseContext | None = None  # how loading processes must be started

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    @abstractmethod
    def classes(self) -> Classes:
        """Classes of the data set."""

    @abstractmethod
    def read_table(self) -> pd.DataFrame:
        """One row per image, ordered by ``image_id``, checked.

        The columns are ``image_id``, ``lesion_id`` (images of one lesion are never separated),
        ``dx`` (the class), ``source`` (images of one cache file), ``row`` in this cache, and
        whatever else is known. A data set that comes with a split has it in ``given_split``.

        Raises:
            DataError: The table is missing, damaged or contradictory.
        """

    @abstractmethod
    def file_names(self, kind: str, rows: pd.DataFrame) -> pd.Series[str]:
        """The file of each row as a path from the folder, missing where there is none.

        Args:
            kind: ``image`` or ``mask``; a data set need not have masks.
            rows: Rows of :attr:`table`.
        """

    @abstractmethod
    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        """The error message about images without a file of some kind, and what to do."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table, read once."""
        return self.read_table()

    def locate(self, kind: str, rows: pd.DataFrame) -> Files:
        """The files of some rows of :attr:`table`; see :meth:`file_names`.

        Raises:
            DataError: There is no such file for some of the rows.
        """
        names = self.file_names(kind, rows)
        if len(missing := rows["image_id"][names.isna()]):
            raise DataError(self.describe_missing(kind, sorted(missing)))
        return Files(self.root, names)

    def arrays(
        self, source: str, size: int, maps: Sequence[str] = (), cache_dir: Path | None = None
    ) -> dict[str, Any]:
        """The pixels of a source: arrays (N, ...) that are indexed by arrays of rows.

        Arguments and errors are those of :func:`~datamodules.cache.cached_arrays`.
        """
        return cached_arrays(self, source, size, maps, cache_dir)

    def read_masks(self, rows: pd.DataFrame, size: int) -> np.ndarray | None:
        """The masks (B, size, size) of some rows of :attr:`table`, None if some are missing."""
        if self.file_names("mask", rows).isna().any():
            return None
        try:
            return np.stack([read_mask(Path(file), size) for file in self.locate("mask", rows)])
        except FileNotFoundError:  # removed since the table was read
            return None

    @property
    def group(self) -> str:
        """Meaning of the column ``lesion_id``: ``lesion``, ``patient`` or ``image``."""
        return "lesion"

    @property
    def synthetic(self) -> bool:
        """Whether the images are synthetic, so that no result applies to real skin."""
        return (self.root / SYNTHETIC).exists()

    def report_unused(self, used: pd.DataFrame) -> None:
        """Print how many images in use lack a lesion id, and which files the table does not list.

        Args:
            used: Rows of :attr:`table` that are in use.
        """
        lone = ~used["source"].isin(OFFICIAL) & (used["lesion_id"] == used["image_id"])
        if count := int(lone.sum()):
            print(f"{count:,} images have no lesion_id: each counts as a lesion of its own.")


class Files(Sequence[str]):
    """Paths of files, without an object for each of a million of them.

    Args:
        root: Folder of the files.
        names: Paths of the files from this folder.
    """

    def __init__(self, root: Path, names: pd.Series[str]) -> None:
        self.root = root
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            for name in self.names.iloc[start : start + AT_ONCE].tolist():
                yield os.path.join(self.root, name)

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> Files: ...
    def __getitem__(self, item: int | slice) -> str | Files:
        if isinstance(item, slice):
            return Files(self.root, self.names.iloc[item])
        return os.path.join(self.root, str(self.names.iloc[item]))
