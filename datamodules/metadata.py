"""The metadata of HAM10000 and of the official ISIC 2018 sets, checked, as one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from datamodules.classes import CLASSES
from datamodules.errors import DataError
from datamodules.layout import METADATA, NO_LESION, OFFICIAL, SYNTHETIC
from datamodules.tables import UNKNOWN, read_csv

SAME_LESION = Path(__file__).with_name("same_lesion.csv")  # pairs under two lesion ids


def read_table(root: Path) -> pd.DataFrame:
    """HAM10000's metadata, checked, with the official ISIC 2018 sets appended where installed.

    The ``lesion_id`` is the release's, except for lesions that the release lists under two ids
    (``same_lesion.csv``): :func:`join_lesions` gives them a single id, because splits must not
    separate their images and intervals over lesions must not count them as independent. The
    metadata file itself stays unchanged. Synthetic lesions reuse the release's image ids and are
    never joined.

    Args:
        root: Folder that ``make data`` or ``make demo`` filled.

    Returns:
        One row per image, ordered by ``image_id``, with the columns of the release, the ``source``
        of the image (``ham10000``, ``val`` or ``test``) and its ``row`` among the images of that
        source. An image without a known ``lesion_id`` counts as a lesion of its own, as do the
        images of official sets whose lesions are not published.

    Raises:
        DataError: The metadata is missing or is not a table, contains an unknown class or a
            repeated image, or gives two diagnoses to a lesion with two ids.
    """
    path = root / METADATA
    if not path.exists():
        raise DataError(
            f"No data in {root}. Install HAM10000 with `make data` (`make data SRC=folder` for "
            "archives that you already have), draw synthetic lesions with `make demo`, or describe "
            f"images of your own in {root / 'dataset.yaml'}."
        )
    official = [_official(root, name) for name in OFFICIAL if _ground_truth(root, name).exists()]
    table = pd.concat([release_table(path), *official])
    table = table.sort_values("image_id", ignore_index=True)
    repeated = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise DataError(
            f"{path} lists {repeated.iloc[0]} more than once ({len(repeated)} such rows): "
            "remove the repeated rows."
        )
    if not (root / SYNTHETIC).exists():
        pairs = pd.read_csv(SAME_LESION, comment="#").itertuples(index=False, name=None)
        table = join_lesions(table, pairs)
    return table.assign(row=table.groupby("source").cumcount())


def release_table(path: Path) -> pd.DataFrame:
    """The rows of a table in the release's format, each with an image, a class and a lesion.

    Raises:
        DataError: The file is not a table, lacks columns, or has rows without an image id or a
            known class.
    """
    table = read_csv(path)
    missing = {"lesion_id", "image_id", "dx"} - set(table)
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(sorted(missing))}, only {', '.join(map(str, table))}:"
            " rename its columns as in HAM10000, or install the data again."
        )
    if table.empty or table["image_id"].isna().any():
        raise DataError(
            f"{path} has {len(table)} rows, {table['image_id'].isna().sum()} of them without an "
            "image_id: complete or remove these rows."
        )
    unknown = table.loc[~table["dx"].isin(CLASSES), ["image_id", "dx"]]
    if len(unknown):
        image, dx = unknown.iloc[0]
        raise DataError(
            f"{path} gives {image} the class {dx!r}, which is not one of {', '.join(CLASSES)} "
            f"({len(unknown)} such rows): correct or remove these rows."
        )
    lesion = table["lesion_id"].fillna("").str.strip()
    known = ~lesion.str.lower().isin(UNKNOWN)
    lesion = lesion.where(known, table["image_id"])
    return table.assign(lesion_id=lesion, source="ham10000")


def without_lesion_id(table: pd.DataFrame) -> int:
    """The number of HAM10000 images that count as lesions of their own, their lesion unknown."""
    released = table["source"] == "ham10000"
    return int((released & (table["lesion_id"] == table["image_id"])).sum())


def join_lesions(table: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """The table with a single ``lesion_id`` for all images that ``pairs`` connect.

    The joined lesion gets the alphabetically last of its ids, whatever the order of rows and
    pairs. In HAM10000 that moves fewer images to another split than the first id would.

    Args:
        table: One row per image with its ``image_id``, ``lesion_id`` and ``dx``.
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


def _ground_truth(root: Path, name: str) -> Path:
    return root / f"{OFFICIAL[name]}_GroundTruth.csv"


def _official(root: Path, name: str) -> pd.DataFrame:
    path = _ground_truth(root, name)
    table = read_csv(path)
    # The challenge publishes one-hot columns, the Dataverse a table like HAM10000's.
    table = release_table(path) if "dx" in table else from_one_hot(path, table)
    return table[table["image_id"] != NO_LESION].assign(source=name)


def from_one_hot(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """A ground truth of the challenge, with one column per class, in HAM10000's format.

    Raises:
        DataError: The table lacks columns, or an image does not have exactly one class.
    """
    columns = [name.upper() for name in CLASSES]
    missing = {"image", *columns} - set(table)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}: install it again.")
    hot = table[columns] == 1
    unclear = table.loc[hot.sum(axis="columns") != 1, "image"]
    if len(unclear):
        raise DataError(
            f"{path} does not give {unclear.iloc[0]} exactly one of the classes "
            f"{', '.join(columns)} ({len(unclear)} such rows): correct or remove these rows."
        )
    dx = hot.idxmax(axis="columns").map(str.lower)
    return pd.DataFrame({"lesion_id": table["image"], "image_id": table["image"], "dx": dx})
