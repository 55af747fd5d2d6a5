"""Splits by lesion: whose images train, select and test. No lesion is ever in two parts.

A split maps the table to the part of each row: ``train``, ``val``, ``test``, or ``""`` for rows
that it leaves out. Lesions are ordered by a hash of seed and lesion id, so a split is the same on
every machine and library version, whatever the order of the table. A lesion that the release has
under two ids is one lesion, because :func:`~datamodules.dataset.read_table` joins it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import pandas as pd

from datamodules.dataset import OFFICIAL, DataError

PARTS = ("train", "val", "test")


class Split(ABC):
    """A rule that gives each lesion of HAM10000 to one part."""

    @abstractmethod
    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        """The part of each row of ``table``, which has ``lesion_id``, ``dx`` and ``source``.

        The table is :func:`~datamodules.dataset.read_table`'s, or some rows of it.
        """


class _ByClass(Split):
    """Splits the lesions of each class on their own, in a seeded order."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        own = table[table["source"] == "ham10000"]
        parts: dict[str, str] = {}
        for dx, rows in own.groupby("dx"):
            # Images per lesion, in the seeded order.
            images = rows["lesion_id"].value_counts().sort_index(key=self._order)
            parts |= self.assign(str(dx), images)
        part = table["lesion_id"].map(parts).fillna("")
        return part.where(table["source"] == "ham10000", "")

    def _order(self, lesions: pd.Index[str]) -> pd.Index[str]:
        return lesions.map(lambda lesion: hashlib.sha256(f"{self.seed}/{lesion}".encode()).digest())

    @abstractmethod
    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        """The part of each lesion of class ``dx``, given its number of images."""


class Balanced(_ByClass):
    """As many test images from every class, and as many for validation: SPMix's protocol.

    Whole lesions are taken until the numbers are met exactly; everything else trains.

    Args:
        test_images: Per class.
        val_images: Per class.
        seed: Another seed is another split. Runs with different seeds share the split.
    """

    def __init__(self, test_images: int = 40, val_images: int = 20, seed: int = 0) -> None:
        super().__init__(seed)
        if min(test_images, val_images) < 1:
            raise DataError(
                f"data.split.test_images={test_images} and data.split.val_images={val_images}: "
                "each must be at least 1."
            )
        self.wanted = {"test": test_images, "val": val_images}

    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        parts: dict[str, str] = {}
        for part, wanted in self.wanted.items():
            left = images.drop(list(parts))
            taken = list(_fill(left, wanted))
            if left[taken].sum() < wanted or len(taken) == len(left):
                raise DataError(
                    f"The balanced split wants {wanted} {part} images of {dx} in whole lesions, "
                    f"with some left for training, but only {len(left)} lesions with "
                    f"{left.sum()} images are free: ask for fewer (data.split.{part}_images)."
                )
            parts |= dict.fromkeys(taken, part)
        return dict.fromkeys(images.index, "train") | parts


def _fill(images: pd.Series[int], wanted: int) -> Iterator[str]:
    for lesion, count in images.items():
        if wanted == 0:
            return
        if count <= wanted:
            wanted -= count
            yield str(lesion)


class Stratified(_ByClass):
    """The same fractions of the lesions of every class; the classes stay as rare as they are.

    Args:
        val_fraction: Of the lesions of each class.
        test_fraction: Of the lesions of each class.
        seed: Another seed is another split. Runs with different seeds share the split.
    """

    def __init__(
        self, val_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 0
    ) -> None:
        super().__init__(seed)
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise DataError(
                f"data.split.val_fraction={val_fraction} and data.split.test_fraction="
                f"{test_fraction}: each must be above 0, and their sum below 1."
            )
        self.val, self.test = val_fraction, test_fraction

    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        n = len(images)
        test, val = round(n * self.test), round(n * self.val)
        if min(test, val, n - test - val) < 1:
            raise DataError(
                f"The stratified split leaves a part without {dx}, which has {n} lesions, at "
                f"fractions of {self.val} and {self.test}: choose others (data.split)."
            )
        order = ["test"] * test + ["val"] * val + ["train"] * (n - test - val)
        return dict(zip(images.index, order, strict=True))


class KFold(_ByClass):
    """Fold ``fold`` of ``k`` tests, the next one validates, the others train.

    Args:
        k: Number of folds; every lesion tests in exactly one of them.
        fold: Which one, from 0.
        seed: Another seed is another partition.
    """

    def __init__(self, k: int = 5, fold: int = 0, seed: int = 0) -> None:
        super().__init__(seed)
        if k < 3 or not 0 <= fold < k:
            raise DataError(f"k-fold needs k >= 3 and 0 <= fold < k, not k={k} and fold={fold}.")
        self.k, self.fold = k, fold

    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        if len(images) < self.k:
            raise DataError(
                f"{dx} has {len(images)} lesions, too few for {self.k} folds: "
                "choose a smaller data.split.k."
            )
        role = {self.fold: "test", (self.fold + 1) % self.k: "val"}
        return {str(lesion): role.get(i % self.k, "train") for i, lesion in enumerate(images.index)}


class Official(Split):
    """HAM10000 trains; the ISIC 2018 Task 3 validation (193) and test (1,511) sets judge."""

    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        missing = set(OFFICIAL) - set(table["source"])
        if missing:
            raise DataError(
                f"The official ISIC 2018 sets are not installed ({', '.join(sorted(missing))}): "
                "run `make data ARGS=--official`."
            )
        return table["source"].replace({"ham10000": "train"})
