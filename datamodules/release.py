"""HAM10000's release as a data folder, with the official ISIC 2018 sets where installed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from datamodules import layout, metadata
from datamodules.classes import HAM10000_CLASSES, Classes
from datamodules.data_folder import DataFolder
from datamodules.errors import MAX_LISTED


class Release(DataFolder):
    """HAM10000's release in the publishers' layout; see :mod:`datamodules.layout`."""

    @property
    def classes(self) -> Classes:
        return HAM10000_CLASSES

    def read_table(self) -> pd.DataFrame:
        return metadata.read_table(self.root)

    def file_names(self, kind: str, rows: pd.DataFrame) -> pd.Series[str]:
        return rows["image_id"].map({i: str(file) for i, file in self._files[kind].items()})

    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        return layout.missing_files(self.root, kind, image_ids)

    def report_unused(self, used: pd.DataFrame) -> None:
        super().report_unused(used)
        listed = {layout.NO_LESION, *self.table["image_id"]}
        if unlisted := sorted(self._files["image"].keys() - listed):
            more = " ..." if len(unlisted) > MAX_LISTED else ""
            print(
                f"{len(unlisted):,} images are left out, because the metadata has no row for them: "
                f"{', '.join(unlisted[:MAX_LISTED])}{more}"
            )

    @cached_property
    def _files(self) -> Mapping[str, Mapping[str, Path]]:
        """The files of each kind by image id, listed once, as paths from the folder."""
        by_kind = {"image": layout.image_files(self.root), "mask": layout.mask_files(self.root)}
        return {
            kind: {image_id: file.relative_to(self.root) for image_id, file in files.items()}
            for kind, files in by_kind.items()
        }
