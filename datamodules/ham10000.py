"""The LightningDataModule of HAM10000."""

from __future__ import annotations

from functools import cached_property

from datamodules.data_folder import DataFolder
from datamodules.lesion_data import LesionData
from datamodules.release import Release


class HAM10000(LesionData):
    """HAM10000 (https://arxiv.org/abs/1803.10417), split by lesion.

    10,015 dermatoscopic images of 7,470 lesions in seven classes, from 6,705 nevi to 115
    dermatofibromas. Arguments are those of :class:`~datamodules.lesion_data.LesionData`; ``root``
    is the folder into which ``make data`` installed the release.

    Examples:
        >>> from pathlib import Path
        >>> from datamodules.splits import Balanced
        >>> data = HAM10000(Path("data/demo"), Balanced(test_images=3, val_images=2), size=64)
        >>> data.class_names
        ('mel', 'nv', 'bcc', 'akiec', 'bkl', 'df', 'vasc')
    """

    @cached_property
    def folder(self) -> DataFolder:
        return Release(self.root)
