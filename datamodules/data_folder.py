"""A folder of images with what is known about them: a release of HAM10000, or a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from datamodules.classes import Classes
from datamodules.errors import MAX_LISTED
from datamodules.layout import OFFICIAL, SYNTHETIC


class DataFolder(ABC):
    """Base of the data folders: their classes, their table and the files of their images.

    Args:
        root: The folder.
    """

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
    def find_files(self, kind: str) -> Mapping[str, Path]:
        """The files of one ``kind``, ``image`` or ``mask``, by image id."""

    @abstractmethod
    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        """The error message about images without a file of some kind, and what to do."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table, read once."""
        return self.read_table()

    @cached_property
    def image_files(self) -> Mapping[str, Path]:
        """The image files by image id, listed once."""
        return self.find_files("image")

    @cached_property
    def mask_files(self) -> Mapping[str, Path]:
        """The mask files by image id, listed once; a data set need not have masks."""
        return self.find_files("mask")

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
        if unlisted := sorted(self.image_files.keys() - self.listed_images()):
            more = " ..." if len(unlisted) > MAX_LISTED else ""
            print(
                f"{len(unlisted):,} images are left out, because the metadata has no row for them: "
                f"{', '.join(unlisted[:MAX_LISTED])}{more}"
            )

    def listed_images(self) -> set[str]:
        """Ids of the images that the table lists."""
        return set(self.table["image_id"])
