"""HAM10000's table, its classes, and the dataset that serves cached pixels by the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError as DataError
from datamodules.folders import files_below, listed
from datamodules.pixels import is_photo, reason
from datamodules.tables import UNKNOWN, read_csv

# The order of the ISIC 2018 ground truth, which the published code of SPMix and CARE follows.
CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")

# The layout of an installed release: its own names, unpacked.
METADATA = "HAM10000_metadata.csv"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
OFFICIAL = {"val": "ISIC2018_Task3_Validation", "test": "ISIC2018_Task3_Test"}
NO_LESION = "ISIC_0035068"  # in the official test ground truth, but shows no lesion
SAME_LESION = Path(__file__).with_name("same_lesion.csv")  # pairs under two lesion ids

SYNTHETIC = "SYNTHETIC.txt"  # marks a folder of drawings
SHOWN = 20  # names in a message


def read_table(root: Path) -> pd.DataFrame:
    """HAM10000's metadata, checked, with the official ISIC 2018 sets appended where installed.

    Args:
        root: The folder that ``make data`` or ``make demo`` filled.

    Returns:
        A row per image with the release's columns, its ``source``: ``ham10000``, ``val`` or
        ``test``, and its ``row`` among the images of that source, ordered by ``image_id``. An
        official set whose lesions are not published has each image count as one, and so has an
        image whose ``lesion_id`` is unknown.

    The ``lesion_id`` is the release's, except for the lesions that the release has under two ids
    (``same_lesion.csv``), which :func:`join_lesions` gives one: splits must not separate their
    images, and intervals over lesions must not count them as independent. The metadata file stays
    as released. Synthetic lesions reuse the release's image ids and are never joined.

    Raises:
        DataError: The metadata is missing, is no table, names an unknown class or an image twice,
            or gives two diagnoses to a lesion with two ids.
    """
    path = root / METADATA
    if not path.exists():
        raise DataError(
            f"No data in {root}: `make data` installs HAM10000 (`make data SRC=folder` from "
            "archives that you have), and `make demo` draws synthetic lesions to try things out."
        )
    official = [_official(root, part) for part in OFFICIAL if _ground_truth(root, part).exists()]
    table = pd.concat([release_table(path), *official])
    table = table.sort_values("image_id", ignore_index=True)
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(
            f"{path} names {twice.iloc[0]} more than once ({len(twice)} such rows): "
            "remove the repetitions."
        )
    if not (root / SYNTHETIC).exists():
        pairs = pd.read_csv(SAME_LESION, comment="#").itertuples(index=False, name=None)
        table = join_lesions(table, pairs)
    return table.assign(row=table.groupby("source").cumcount())


def release_table(path: Path) -> pd.DataFrame:
    """The rows of a table in the release's format, each with an image, a class and a lesion.

    Raises:
        DataError: It is no table, lacks columns, or has rows without an image or a known class.
    """
    table = read_csv(path)
    missing = {"lesion_id", "image_id", "dx"} - set(table)
    if missing:
        there = ", ".join(map(str, table))
        raise DataError(
            f"{path} has no column {', '.join(sorted(missing))}, but {there}: rename its columns "
            "as in HAM10000, or install the data again."
        )
    if table.empty or table["image_id"].isna().any():
        nameless = table["image_id"].isna().sum()
        raise DataError(
            f"{path} has {len(table)} rows, {nameless} of them without an image_id: complete or "
            "remove them."
        )
    unknown = table.loc[~table["dx"].isin(CLASSES), ["image_id", "dx"]]
    if len(unknown):
        image, dx = unknown.iloc[0]
        raise DataError(
            f"{path} gives {image} the class {dx!r}, which is none of {', '.join(CLASSES)} "
            f"({len(unknown)} such rows): correct or remove them."
        )
    lesion = table["lesion_id"].fillna("").str.strip()
    known = ~lesion.str.lower().isin(UNKNOWN)
    lesion = lesion.where(known, table["image_id"])
    return table.assign(lesion_id=lesion, source="ham10000")


def without_lesion_id(table: pd.DataFrame) -> int:
    """How many images of HAM10000 count as lesions of their own, because theirs are unknown."""
    own = table["source"] == "ham10000"
    return int((own & (table["lesion_id"] == table["image_id"])).sum())


def join_lesions(table: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """The table with a single ``lesion_id`` for all images that ``pairs`` connect.

    It is the last of the lesions' ids in alphabetical order, whatever the order of rows and pairs.
    For HAM10000 that changes the part of fewer images than the first one would.

    Args:
        table: A row per image with its ``image_id``, ``lesion_id`` and ``dx``.
        pairs: Ids of two images of one lesion. A pair is ignored if either image is not in the
            table.

    Raises:
        DataError: Two lesions to be joined have different diagnoses.
    """
    pairs = list(pairs)
    paired = table[table["image_id"].isin({image for pair in pairs for image in pair})]
    lesions = dict(zip(paired["image_id"], paired["lesion_id"], strict=True))
    parent: dict[str, str] = {}

    def root(lesion: str) -> str:
        while lesion in parent:
            lesion = parent[lesion]
        return lesion

    for pair in pairs:
        if lesions.keys() >= set(pair):
            first, last = sorted(root(lesions[image]) for image in pair)
            if first != last:
                parent[first] = last
    joined = table["lesion_id"].replace({lesion: root(lesion) for lesion in parent})
    for _, rows in table[joined.isin(set(parent.values()))].groupby(joined):
        if rows["dx"].nunique() > 1:
            ids, classes = (", ".join(sorted(set(rows[name]))) for name in ("lesion_id", "dx"))
            raise DataError(
                f"{ids} are one lesion according to {SAME_LESION.name}, but their diagnoses differ "
                f"({classes}): correct the metadata."
            )
    return table.assign(lesion_id=joined)


def _ground_truth(root: Path, part: str) -> Path:
    return root / f"{OFFICIAL[part]}_GroundTruth.csv"


def _official(root: Path, part: str) -> pd.DataFrame:
    path = _ground_truth(root, part)
    table = read_csv(path)
    # The challenge's table is one-hot, the Dataverse's like HAM10000's.
    table = release_table(path) if "dx" in table else from_one_hot(path, table)
    return table[table["image_id"] != NO_LESION].assign(source=part)


def from_one_hot(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """A table of the challenge, with a column per class, in the format of HAM10000's.

    Raises:
        DataError: It lacks columns, or an image is not of exactly one class.
    """
    columns = [name.upper() for name in CLASSES]
    missing = {"image", *columns} - set(table)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}: install it again.")
    hot = table[columns] == 1
    unclear = table.loc[hot.sum(axis="columns") != 1, "image"]
    if len(unclear):
        raise DataError(
            f"{path} does not give {unclear.iloc[0]} one of the classes {', '.join(columns)} "
            f"({len(unclear)} such rows): correct or remove them."
        )
    dx = hot.idxmax(axis="columns").map(str.lower)
    return pd.DataFrame({"lesion_id": table["image"], "image_id": table["image"], "dx": dx})


def image_files(root: Path) -> dict[str, Path]:
    """Image id to file."""
    folders = (*IMAGE_FOLDERS, *(f"{name}_Input" for name in OFFICIAL.values()))
    return {path.stem: path for name in folders for path in _named(root / name, "ISIC_*.jpg")}


def mask_files(root: Path) -> dict[str, Path]:
    """Image id to the file of its lesion mask; the official sets have none."""
    files = _named(root / MASK_FOLDER, "ISIC_*_segmentation.png")
    return {path.stem.removesuffix("_segmentation"): path for path in files}


def _named(folder: Path, pattern: str) -> list[Path]:
    names = [name for name in listed(folder) if fnmatchcase(standard(name), pattern)]
    return [folder / name for name in names]


def standard(name: str) -> str:
    """A file name with its ending as released: .JPG and .jpeg become .jpg, .PNG becomes .png."""
    stem, dot, ending = name.rpartition(".")
    ending = ending.lower()
    return f"{stem}{dot}{'jpg' if ending == 'jpeg' else ending}"


class LesionDataset(Dataset[dict[str, Tensor]]):
    """Images of one part, fetched a batch at a time from cached arrays.

    Args:
        arrays: Name to array, a row per image of the source: ``image`` (N, H, W, 3) and, where
            asked for, ``mask`` and ``saliency`` (N, H, W); uint8, usually memory maps.
        table: The part's images: ``row`` in the arrays and ``label``.

    An item is a dict: ``image`` (3, H, W), ``mask`` and ``saliency`` (1, H, W), all uint8, with
    ``label`` and ``index``, the index of the image in ``table``.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], table: pd.DataFrame) -> None:
        self.arrays = arrays
        self.rows = table["row"].to_numpy()
        self.labels = table["label"].to_numpy()
        self.index = table.index.to_numpy()

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is not forked opens the maps itself; pickled, they would be copied whole.
        files = {name: getattr(array, "filename", array) for name, array in self.arrays.items()}
        return self.__dict__ | {"arrays": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.arrays = {
            name: array if isinstance(array, np.ndarray) else np.load(array, mmap_mode="r")
            for name, array in self.arrays.items()
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([item]).items()}

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        """The whole batch in one indexing of each array; DataLoader calls this where it exists."""
        rows = self.rows[items]
        batch = {name: _channels_first(array[rows]) for name, array in self.arrays.items()}
        return batch | {
            "label": torch.from_numpy(self.labels[items]),
            "index": torch.from_numpy(self.index[items]),
        }


def _channels_first(pixels: np.ndarray) -> Tensor:
    # A view: (B, 3, H, W) in the channels-last layout that convolutions like best.
    return torch.from_numpy(pixels.reshape(*pixels.shape[:3], -1)).permute(0, 3, 1, 2)


class FolderDataset(Dataset[dict[str, Tensor]]):
    """The photos of any folder, decoded on the fly as the cache would.

    An item is a dict: ``image`` (3, H, W) uint8, ``index`` in :attr:`files`, and ``readable``;
    an image that cannot be read is black.

    Args:
        folder: A folder, which is searched with its subfolders, or a single photo. What operating
            systems hide in folders is passed over; :attr:`left_out` has every other file that is
            no photo.
        size: Height and width of the images.
        read: A file and the size to (size, size, 3) uint8.

    Raises:
        DataError: The folder does not exist, cannot be searched, or holds no photo.
    """

    def __init__(self, folder: Path, size: int, read: Callable[[Path, int], np.ndarray]) -> None:
        folder = folder.expanduser()
        if not folder.exists():
            raise DataError(f"{folder} does not exist: name a folder of photos, or a photo.")
        found = files_below(folder) if folder.is_dir() else [folder]
        self.files = [file for file in found if is_photo(file)]
        self.folder = folder if folder.is_dir() else folder.parent
        self.left_out = sorted(set(found) - set(self.files))
        self.size, self.read = size, read
        if not self.files:
            raise DataError(" ".join(filter(None, (f"{folder} holds no image.", self.remark))))

    @property
    def remark(self) -> str:
        """A sentence that counts and names the files that are no photos, if there are any."""
        if not self.left_out:
            return ""
        kinds = Counter(file.suffix.lower() or "no ending" for file in self.left_out)
        names = [str(file.relative_to(self.folder)) for file in self.left_out]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return (
            f"{len(names)} files were left out, because Pillow decodes no photo in them "
            f"({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}): "
            f"{', '.join(names[:SHOWN])}{more}. If they are photos, convert them to JPEG or PNG."
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        pixels = [self._read(self.files[item]) for item in items]
        images = np.zeros((len(items), self.size, self.size, 3), dtype=np.uint8)
        for image, read in zip(images, pixels, strict=True):
            if not isinstance(read, str):
                image[:] = read
        return {
            "image": _channels_first(images),
            "index": torch.tensor(items),
            "readable": torch.tensor([not isinstance(read, str) for read in pixels]),
        }

    def why_unreadable(self, item: int) -> str:
        """The reason why a file cannot be read; it is empty if it can."""
        read = self._read(self.files[item])
        return read if isinstance(read, str) else ""

    def _read(self, file: Path) -> np.ndarray | str:
        try:
            return self.read(file, self.size)
        except Exception as error:  # Pillow raises half a dozen types for damaged files
            return reason(file, error)
