"""HAM10000's release as a data folder, with the official ISIC 2018 sets where installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from datamodules import layout, metadata
from datamodules.classes import HAM10000_CLASSES, Classes
from datamodules.data_folder import DataFolder


class Release(DataFolder):
    """HAM10000's release in the publishers' layout; see :mod:`datamodules.layout`."""

    @property
    def classes(self) -> Classes:
        return HAM10000_CLASSES

    def read_table(self) -> pd.DataFrame:
        return metadata.read_table(self.root)

    def find_files(self, kind: str) -> Mapping[str, Path]:
        return (layout.image_files if kind == "image" else layout.mask_files)(self.root)

    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        return layout.missing_files(self.root, kind, image_ids)

    def listed_images(self) -> set[str]:
        return {layout.NO_LESION, *super().listed_images()}
