"""Splits by lesion into training, validation and test; no lesion is ever in two of them.

Lesions are ordered by a hash of seed and lesion id, so a split is the same on every machine and
library version, whatever the order of the table. A lesion that HAM10000 lists under two ids is
one lesion, because :func:`~datamodules.metadata.read_table` joins it. Where a data set groups its
images by patient, "lesion" means all images of a patient.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import pandas as pd

from datamodules.errors import DataError
from datamodules.layout import OFFICIAL

SPLITS = ("train", "val", "test")


class Split(ABC):
    """Base of the rules that ``data.split`` accepts: each assigns whole lesions to the splits."""

    @abstractmethod
    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        """The split of each row: ``train``, ``val``, ``test``, or ``""`` for rows left out.

        Args:
            table: Rows of :attr:`~datamodules.data_folder.DataFolder.table`, with ``lesion_id``,
                ``dx`` and ``source``.
        """


class _ByClass(Split):
    """Split the lesions of each class separately, in a seeded order.

    A group of images of several classes, such as those of a patient, counts for its rarest class.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        released = ~table["source"].isin(OFFICIAL)
        split_of: dict[str, str] = {}
        lesions = table[released]
        for dx, rows in lesions.groupby(_class_of_lesion(lesions)):
            # Images per lesion, in the seeded order.
            images = rows["lesion_id"].value_counts().sort_index(key=self._order)
            split_of |= self.assign(str(dx), images)
        return table["lesion_id"].map(split_of).fillna("").where(released, "")

    def _order(self, lesions: pd.Index[str]) -> pd.Index[str]:
        return lesions.map(lambda lesion: hashlib.sha256(f"{self.seed}/{lesion}".encode()).digest())

    @abstractmethod
    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        """The split of each lesion of class ``dx``, given the lesions' numbers of images."""


def _class_of_lesion(table: pd.DataFrame) -> pd.Series[str]:
    """The class that each row's lesion counts for."""
    images = table["dx"].map(table["dx"].value_counts())
    rarest = table.assign(images=images).sort_values(["images", "dx"], kind="stable")
    return table["lesion_id"].map(rarest.drop_duplicates("lesion_id").set_index("lesion_id")["dx"])


class Balanced(_ByClass):
    """SPMix's protocol: equally many test images from every class, and likewise for validation.

    Whole lesions are taken until the numbers are met exactly. All other lesions are for training,
    and so are groups of images of several classes.

    Args:
        test_images: Number of test images per class, at least 1.
        val_images: Number of validation images per class, at least 1.
        seed: Seed of the split, which is independent of the run's. Runs share a split if this
            seed is the same.

    Examples:
        >>> lesions = [f"HAM_{number}" for number in range(20)]
        >>> table = pd.DataFrame({"lesion_id": lesions, "dx": "nv", "source": "ham10000"})
        >>> Balanced(test_images=4, val_images=2)(table).value_counts().to_dict()
        {'train': 14, 'test': 4, 'val': 2}
    """

    def __init__(self, test_images: int = 40, val_images: int = 20, seed: int = 0) -> None:
        super().__init__(seed)
        if min(test_images, val_images) < 1:
            raise DataError(
                f"data.split.test_images={test_images} and data.split.val_images={val_images}: "
                "set each to at least 1."
            )
        self.numbers = {"test": test_images, "val": val_images}

    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        # A group of several classes, such as a patient's images, would add images of others.
        mixed = table.groupby("lesion_id")["dx"].transform("nunique") > 1
        return super().__call__(table[~mixed]).reindex(table.index, fill_value="train")

    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        split_of: dict[str, str] = {}
        for split, number in self.numbers.items():
            free = images.drop(list(split_of))
            chosen = _fill(free, number)
            if free[chosen].sum() < number or len(chosen) == len(free):
                raise DataError(_why_impossible(split, number, dx, free, int(free[chosen].sum())))
            split_of |= dict.fromkeys(chosen, split)
        return dict.fromkeys(images.index, "train") | split_of


def _fill(images: pd.Series[int], number: int) -> list[str]:
    """The lesions, in order, that each still fit into ``number`` images."""
    chosen = []
    for lesion, count in images.items():
        if count <= number:
            number -= count
            chosen.append(str(lesion))
    return chosen


def _why_impossible(split: str, number: int, dx: str, free: pd.Series[int], reached: int) -> str:
    """The message about a class whose ``free`` lesions do not give ``number`` images."""
    option = f"data.split.{split}_images"
    if free.sum() - free.min() < number:
        return (
            f"The balanced split takes {number} {split} images of {dx} in whole lesions and leaves "
            f"at least one lesion for training, but only {len(free)} lesions with {free.sum()} "
            f"images are available: lower {option}."
        )
    fewest = free.min()
    most = free.max()
    sizes = f"{most}" if fewest == most else f"{fewest} to {most}"
    return (
        f"The balanced split cannot take exactly {number} {split} images of {dx} in whole lesions: "
        f"the {len(free)} available lesions have {sizes} images each. Choose another {option}, "
        f"such as {reached or fewest}."
    )


class Stratified(_ByClass):
    """The same fractions of the lesions of every class, so that rare classes stay rare.

    Args:
        val_fraction: Fraction of the lesions of each class for validation, in (0, 1).
        test_fraction: Fraction of the lesions of each class for the test, in (0, 1).
        seed: Seed of the split, which is independent of the run's. Runs share a split if this
            seed is the same.

    Examples:
        >>> lesions = [f"HAM_{number}" for number in range(20)]
        >>> table = pd.DataFrame({"lesion_id": lesions, "dx": "nv", "source": "ham10000"})
        >>> Stratified(val_fraction=0.1, test_fraction=0.2)(table).value_counts().to_dict()
        {'train': 14, 'test': 4, 'val': 2}
    """

    def __init__(
        self, val_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 0
    ) -> None:
        super().__init__(seed)
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise DataError(
                f"data.split.val_fraction={val_fraction} and data.split.test_fraction="
                f"{test_fraction}: set each above 0, with a sum below 1."
            )
        self.val = val_fraction
        self.test = test_fraction

    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        n = len(images)
        test = round(n * self.test)
        val = round(n * self.val)
        if min(test, val, n - test - val) < 1:
            raise DataError(
                f"The stratified split leaves one split without {dx}, which has {n} lesions, at "
                f"val_fraction={self.val} and test_fraction={self.test}: choose other fractions "
                "(data.split)."
            )
        order = ["test"] * test + ["val"] * val + ["train"] * (n - test - val)
        return dict(zip(images.index, order, strict=True))


class KFold(_ByClass):
    """Cross-validation by lesion: one fold tests, the next one validates, the others train.

    Args:
        k: Number of folds, at least 3. Every lesion is in the test split of exactly one fold.
        fold: Fold that tests, from 0 to k - 1.
        seed: Seed of the partition, which is independent of the run's.

    Examples:
        >>> lesions = [f"HAM_{number}" for number in range(20)]
        >>> table = pd.DataFrame({"lesion_id": lesions, "dx": "nv", "source": "ham10000"})
        >>> KFold(k=5, fold=0)(table).value_counts().sort_index().to_dict()
        {'test': 4, 'train': 12, 'val': 4}
    """

    def __init__(self, k: int = 5, fold: int = 0, seed: int = 0) -> None:
        super().__init__(seed)
        if k < 3 or not 0 <= fold < k:
            raise DataError(
                f"data.split.k={k} and data.split.fold={fold}: set k to at least 3, and fold from "
                "0 to k - 1."
            )
        self.k = k
        self.fold = fold

    def assign(self, dx: str, images: pd.Series[int]) -> dict[str, str]:
        if len(images) < self.k:
            raise DataError(
                f"{dx} has {len(images)} lesions, too few for {self.k} folds: lower data.split.k."
            )
        role = {self.fold: "test", (self.fold + 1) % self.k: "val"}
        return {str(lesion): role.get(i % self.k, "train") for i, lesion in enumerate(images.index)}


class Official(Split):
    """The split that a data set comes with: the column ``split`` of its table.

    HAM10000 has the ISIC 2018 Task 3 sets for validation (193) and test (1,511). If a data set
    comes without validation images, some training lesions of each class become them.

    Args:
        val_fraction: Fraction of the training lesions of each class, in (0, 1), that validate if
            the data set has no validation images.
        seed: Seed of the choice of these lesions, which is independent of the run's.

    Examples:
        >>> table = pd.DataFrame({"source": ["ham10000", "val", "test"]})
        >>> Official()(table).tolist()
        ['train', 'val', 'test']
    """

    def __init__(self, val_fraction: float = 0.1, seed: int = 0) -> None:
        if not 0 < val_fraction < 1:
            raise DataError(f"data.split.val_fraction={val_fraction}: set it between 0 and 1.")
        self.val_fraction = val_fraction
        self.seed = seed

    def __call__(self, table: pd.DataFrame) -> pd.Series[str]:
        if "given_split" in table:
            return self._given(table)
        missing = set(OFFICIAL) - set(table["source"])
        if missing:
            raise DataError(
                f"The official ISIC 2018 sets are not installed ({', '.join(sorted(missing))}): "
                "run `make data ARGS=--official`. Other data sets need a column `split`."
            )
        return table["source"].replace({"ham10000": "train"})

    def _given(self, table: pd.DataFrame) -> pd.Series[str]:
        split = table["given_split"]
        apart = table[split != ""].groupby("lesion_id")["given_split"].nunique()
        if divided := sorted(apart.index[apart > 1]):
            raise DataError(
                f"The data set's own split separates the images of {len(divided)} lesions, "
                f"{divided[0]} the first: correct its column `split`."
            )
        if (split == "val").any():
            return split
        train = table[split == "train"]
        share = Stratified(self.val_fraction, self.val_fraction / 2, self.seed)
        return split.where(share(train).reindex(table.index) != "val", "val")
