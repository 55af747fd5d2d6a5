"""Which class of HAM10000 the labels of other data sets are, a table per data set.

The tables have the columns ``label``, ``title``, ``ham10000`` and ``source``. A label whose
``ham10000`` is empty is no class of HAM10000, or only partly one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from datamodules.classes import CLASSES, Classes
from datamodules.errors import DataError

FOLDER = Path(__file__).parent


def read_mapping(name: str) -> dict[str, str]:
    """HAM10000's class of each label of a data set, empty if it has none.

    Labels that the table lacks are no class of HAM10000 either.

    Args:
        name: Name of a table in this folder, such as ``pad_ufes_20``.

    Raises:
        DataError: There is no such table, or it names a class that HAM10000 does not have.

    Examples:
        >>> mapping = read_mapping("pad_ufes_20")
        >>> mapping["NEV"], mapping["SCC"]
        ('nv', '')
    """
    table = _read(name)
    if not set(table["ham10000"]) <= {"", *CLASSES}:
        raise DataError(f"The mapping {name} has classes other than {', '.join(CLASSES)}.")
    return dict(zip(table["label"], table["ham10000"], strict=True))


def titled(name: str, labels: Sequence[str]) -> Classes:
    """The labels as classes, with the titles of a table."""
    titles = _read(name).set_index("label")["title"]
    return Classes({label: str(titles[label]) for label in labels})


def _read(name: str) -> pd.DataFrame:
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.csv")))
        raise DataError(f"There is no mapping {name}: choose one of {known}.")
    return pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
