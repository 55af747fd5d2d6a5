"""HAM10000's table, its classes, and the dataset that serves cached pixels by the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

# The order of the ISIC 2018 ground truth, which the published code of SPMix and CARE follows.
CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")

# The layout of an installed release: its own names, unpacked.
METADATA = "HAM10000_metadata.csv"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
OFFICIAL = {"val": "ISIC2018_Task3_Validation", "test": "ISIC2018_Task3_Test"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
NO_LESION = "ISIC_0035068"  # in the official test ground truth, but shows no lesion
SAME_LESION = Path(__file__).with_name("same_lesion.csv")  # pairs under two lesion ids

SYNTHETIC = "SYNTHETIC.txt"  # marks a folder of drawings


class DataError(Exception):
    """What is wrong with the data, where, and what to do, in one sentence for the user."""


def read_table(root: Path) -> pd.DataFrame:
    """HAM10000's metadata, checked, with the official ISIC 2018 sets appended where installed.

    Args:
        root: The folder that ``make data`` or ``make demo`` filled.

    Returns:
        A row per image with the release's columns, its ``source``: ``ham10000``, ``val`` or
        ``test``, and its ``row`` among the images of that source, ordered by ``image_id``. An
        official set whose lesions are not published has each image count as one.

    The ``lesion_id`` is the release's, except for the lesions that the release has under two ids
    (``same_lesion.csv``), which :func:`join_lesions` gives one: splits must not separate their
    images, and intervals over lesions must not count them as independent. The metadata file stays
    as released. Synthetic lesions reuse the release's image ids and are never joined.

    Raises:
        DataError: The metadata is missing, names an unknown class or an image twice, or gives two
            diagnoses to a lesion with two ids.
    """
    path = root / METADATA
    if not path.exists():
        raise DataError(
            f"No data in {root}: `make data` installs HAM10000 (`make data SRC=folder` from "
            "archives that you have), and `make demo` draws synthetic lesions to try things out."
        )
    table = pd.read_csv(path, sep=_separator(path)).assign(source="ham10000")
    missing = {"lesion_id", "image_id", "dx"} - set(table)
    if missing:
        raise DataError(f"{path} has no column {sorted(missing)}: install the data again.")
    official = [_official(root, part) for part in OFFICIAL if _ground_truth(root, part).exists()]
    table = pd.concat([table, *official]).sort_values("image_id", ignore_index=True)
    _check(table, path)
    if not (root / SYNTHETIC).exists():
        pairs = pd.read_csv(SAME_LESION, comment="#").itertuples(index=False, name=None)
        table = join_lesions(table, pairs)
    return table.assign(row=table.groupby("source").cumcount())


def _check(table: pd.DataFrame, path: Path) -> None:
    unknown = table.loc[~table["dx"].isin(CLASSES), ["image_id", "dx"]]
    if len(unknown):
        image, dx = unknown.iloc[0]
        raise DataError(
            f"{path} gives {image} the class {dx!r}, which is none of {', '.join(CLASSES)} "
            f"({len(unknown)} such rows): correct or remove them."
        )
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(
            f"{path} names {twice.iloc[0]} more than once ({len(twice)} such rows): "
            "remove the repetitions."
        )


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


def _separator(path: Path) -> str:
    # The Dataverse serves the table tab-separated unless asked for the original.
    with path.open() as file:
        return "\t" if "\t" in file.readline() else ","


def _ground_truth(root: Path, part: str) -> Path:
    return root / f"{OFFICIAL[part]}_GroundTruth.csv"


def _official(root: Path, part: str) -> pd.DataFrame:
    table = pd.read_csv(_ground_truth(root, part))
    if "dx" not in table:  # the challenge's table is one-hot, the Dataverse's like HAM10000's
        one_hot = table[[name.upper() for name in CLASSES]]
        dx = one_hot.idxmax(axis="columns").map(str.lower)
        table = pd.DataFrame({"lesion_id": table["image"], "image_id": table["image"], "dx": dx})
    return table[table["image_id"] != NO_LESION].assign(source=part)


def image_files(root: Path) -> dict[str, Path]:
    """Image id to file."""
    folders = (*IMAGE_FOLDERS, *(f"{name}_Input" for name in OFFICIAL.values()))
    return {path.stem: path for name in folders for path in (root / name).glob("ISIC_*.jpg")}


def mask_files(root: Path) -> dict[str, Path]:
    """Image id to the file of its lesion mask; the official sets have none."""
    files = (root / MASK_FOLDER).glob("ISIC_*_segmentation.png")
    return {path.stem.removesuffix("_segmentation"): path for path in files}


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
    """The images of any folder, decoded on the fly as the cache would.

    An item is a dict: ``image`` (3, H, W) uint8, ``index`` in :attr:`files`, and ``readable``;
    an image that cannot be read is black.

    Args:
        folder: Searched with its subfolders.
        size: Height and width of the images.
        read: A file and the size to (size, size, 3) uint8.

    Raises:
        DataError: The folder does not exist or holds no image.
    """

    def __init__(self, folder: Path, size: int, read: Callable[[Path, int], np.ndarray]) -> None:
        self.files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.files:
            raise DataError(
                f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}): name another folder."
            )
        self.folder, self.size, self.read = folder, size, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        pixels = [self._read(self.files[item]) for item in items]
        black = np.zeros((self.size, self.size, 3), dtype=np.uint8)
        images = np.stack([black if image is None else image for image in pixels])
        return {
            "image": _channels_first(images),
            "index": torch.tensor(items),
            "readable": torch.tensor([image is not None for image in pixels]),
        }

    def _read(self, file: Path) -> np.ndarray | None:
        try:
            return self.read(file, self.size)
        except Exception:  # PIL raises half a dozen types for damaged files
            return None
