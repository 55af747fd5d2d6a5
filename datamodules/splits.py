"""Splits by lesion into training, validation and test; no lesion is ever in two of them.

Lesions are ordered by a hash of seed and lesion id, so a split is the same on every machine and
library version, whatever the order of the table. A lesion that HAM10000 lists under two ids is
one lesion, because :func:`~datamodules.metadata.read_table` joins it. Where a data set groups its
images by patient, "lesion" means all images of a patient.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from datamodules.errors import DataError
from datamodules.layout import OFFICIAL

SPLITS = ("train", "val", "test")
VERSION = 1  # in every key; increase it when a split gives another result


class Split(ABC):
    """Base of the rules that ``data.split`` accepts: each assigns whole lesions to the splits."""

    @property
    def key(self) -> str | None:
        """Text that differs between rules with different results; None if these are not kept."""
        is_ours = type(self).__module__ == __name__
        return f"{VERSION} {type(self).__name__} {sorted(vars(self).items())}" if is_ours else None

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
        lesion, lesion_ids = table["lesion_id"][released].factorize()
        rarest, _, names = _classes_of_lesions(lesion, table["dx"][released])
        order = self._order(lesion_ids)
        images = np.bincount(lesion)
        split_of = np.empty(len(lesion_ids), dtype=object)
        for dx in np.argsort(names):
            lesions = order[rarest[order] == dx]
            split_of[lesions] = self.assign(str(names[dx]), images[lesions])
        splits = np.full(len(table), "", dtype=object)
        splits[released.to_numpy()] = split_of[lesion]
        return pd.Series(splits, table.index, dtype="str")

    def _order(self, lesions: Iterable[str]) -> np.ndarray:
        """The numbers of the lesions in the order of their hashes."""
        hashes = (hashlib.sha256(f"{self.seed}/{lesion}".encode()).digest() for lesion in lesions)
        words = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(-1, 4)
        return np.lexsort(words.T[::-1])

    @abstractmethod
    def assign(self, dx: str, images: np.ndarray) -> Sequence[str]:
        """The split of each lesion of class ``dx``, given the lesions' numbers of images."""


def _classes_of_lesions(
    lesion: np.ndarray, dx: pd.Series[str]
) -> tuple[np.ndarray, np.ndarray, pd.Index[str]]:
    """The rarest and the most frequent class of each lesion, as numbers, and the classes' names.

    Args:
        lesion: Number of the lesion of each image.
        dx: Class of each image.
    """
    counts = dx.value_counts()
    names = counts.to_frame("images").rename_axis("dx").sort_values(["images", "dx"]).index
    images_class = names.get_indexer(pd.Index(dx))
    rarest = np.full(lesion.max(initial=-1) + 1, len(names))
    np.minimum.at(rarest, lesion, images_class)
    most_frequent = np.full_like(rarest, -1)
    np.maximum.at(most_frequent, lesion, images_class)
    return rarest, most_frequent, names


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
        lesion, _ = table["lesion_id"].factorize()
        rarest, most_frequent, _ = _classes_of_lesions(lesion, table["dx"])
        mixed = (rarest != most_frequent)[lesion]
        if not mixed.any():
            return super().__call__(table)
        return super().__call__(table[~mixed]).reindex(table.index, fill_value="train")

    def assign(self, dx: str, images: np.ndarray) -> Sequence[str]:
        splits = np.full(len(images), "train", dtype=object)
        for split, number in self.numbers.items():
            free = np.flatnonzero(splits == "train")
            chosen = free[_fill(images[free], number)]
            reached = int(images[chosen].sum())
            if reached < number or len(chosen) == len(free):
                raise DataError(_why_impossible(split, number, dx, images[free], reached))
            splits[chosen] = split
        return splits.tolist()


def _fill(images: np.ndarray, number: int) -> list[int]:
    """The positions of the lesions, in order, that each still fit into ``number`` images."""
    chosen = []
    for position, count in enumerate(images.tolist()):
        if count <= number:
            number -= count
            chosen.append(position)
        if not number:
            break
    return chosen


def _why_impossible(split: str, number: int, dx: str, free: np.ndarray, reached: int) -> str:
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

    def assign(self, dx: str, images: np.ndarray) -> Sequence[str]:
        n = len(images)
        test = round(n * self.test)
        val = round(n * self.val)
        if min(test, val, n - test - val) < 1:
            raise DataError(
                f"The stratified split leaves one split without {dx}, which has {n} lesions, at "
                f"val_fraction={self.val} and test_fraction={self.test}: choose other fractions "
                "(data.split)."
            )
        return ["test"] * test + ["val"] * val + ["train"] * (n - test - val)


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

    def assign(self, dx: str, images: np.ndarray) -> Sequence[str]:
        if len(images) < self.k:
            raise DataError(
                f"{dx} has {len(images)} lesions, too few for {self.k} folds: lower data.split.k."
            )
        role = {self.fold: "test", (self.fold + 1) % self.k: "val"}
        return [role.get(i % self.k, "train") for i in range(len(images))]


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
