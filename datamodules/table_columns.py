"""The columns of a data set's table: their names in its file, and those in a run's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from datamodules.errors import DataError
from datamodules.tables import UNKNOWN, read_csv

DATASET = "dataset.yaml"
# Columns of a table, and their names in a run's files, which are those of HAM10000.
RENAMED = {"image": "image_id", "label": "dx", "site": "localization"}
# Columns that are made, and replace those that a table happens to have.
MADE = (*RENAMED.values(), "lesion_id", "source", "row", "image_file", "mask_file", "given_split")
TEXT = ("image", "label", "lesion", "patient", "split", "mask", "box")  # never read as numbers


def readable(name: str) -> str:
    r"""The name of a file, with bytes that are not UTF-8 escaped as in ``l\xe9sion.png``.

    No table can name such a file, so it is reported as left out.
    """
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def read_rows(path: Path, names: Mapping[str, str]) -> pd.DataFrame:
    """The rows of a CSV or Parquet file, with ids and classes as text.

    Args:
        path: The file.
        names: The file's name of each of our columns.

    Raises:
        DataError: The file is missing or unreadable.
    """
    if not path.exists():
        raise DataError(f"There is no table {path}: correct `table` in {DATASET}.")
    if path.suffix.lower() != ".parquet":
        return read_csv(path, [names[name] for name in TEXT], [names["image"], names["label"]])
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a Parquet file ({error}): write it again.") from error
    texts = {names[name] for name in TEXT} & set(table)
    return table.astype(dict.fromkeys(texts, "str"))


def under_our_names(given: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The table with our names of its columns; other columns of such a name are left out.

    Args:
        given: Rows of the file.
        names: The file's name of each of our columns.

    Examples:
        >>> given = pd.DataFrame({"diagnosis": ["acne"], "label": ["?"], "age": [30]})
        >>> under_our_names(given, {"label": "diagnosis"}).to_dict("list")
        {'label': ['acne'], 'age': [30]}
    """
    used: dict[str, list[str]] = {}
    for ours, theirs in names.items():
        used.setdefault(theirs, []).append(ours)
    table = given.drop(columns=[n for n in given if n not in used and n in {*names, *MADE}])
    table = table.rename(columns={theirs: ours[0] for theirs, ours in used.items()})
    for first, *others in used.values():
        if first in table:  # a column may have several meanings, such as lesion and patient
            table = table.assign(**dict.fromkeys(others, table[first]))
    return table


def groups(table: pd.DataFrame, group: str) -> pd.Series[str]:
    """The group of each image, which is that of no other where it is not known.

    Args:
        table: Rows under our names.
        group: Column of the groups, empty without any.
    """
    if not group:
        return table["image"]
    given = table[group].astype("str").fillna("").str.strip()
    # An unknown patient's image is a group of its own, as an image of an unknown lesion is.
    return given.where(~given.str.lower().isin(UNKNOWN), table["image"])
