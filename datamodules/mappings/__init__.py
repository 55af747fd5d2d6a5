"""Which class of HAM10000 the labels of other data sets are, a table per data set.

The tables have the columns ``label``, ``title``, ``ham10000`` and ``source``. A label whose
``ham10000`` is empty is no class of HAM10000, or only partly one. Tables of one's own, for tests of
a run on other data, have ``label`` and ``class``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from datamodules.adopt_source import code_of
from datamodules.classes import CLASSES, Classes
from datamodules.errors import DataError
from datamodules.tables import read_csv

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


def map_labels(
    labels: Sequence[str], classes: Sequence[str], mapping: str | None = None
) -> dict[str, str]:
    """The class of each label of another data set, empty if it is none of the classes.

    Args:
        labels: Classes of the other data set.
        classes: Classes to map to.
        mapping: Name of a table in this folder, or CSV file with the columns ``label`` and
            ``class`` (or ``ham10000``). Labels are compared without case and spaces, since
            ``adopt`` writes codes; labels that the table lacks are no class. By default, labels
            are the classes with exactly their names.

    Raises:
        DataError: The table is unknown or damaged, contradicts itself, or names other classes; or
            no label is a class.

    Examples:
        >>> map_labels(["basal_cell_carcinoma", "scar"], CLASSES, "isic_archive")
        {'basal_cell_carcinoma': 'bcc', 'scar': ''}
    """
    if mapping is None:
        mapped = {label: label if label in classes else "" for label in labels}
    else:
        known = _mapping(mapping, classes)
        mapped = {label: known.get(_key(label), "") for label in labels}
    if not any(mapped.values()):
        source = f"according to {mapping}" if mapping else "by name"
        raise DataError(
            f"None of the labels {', '.join(labels)} is one of the classes {', '.join(classes)} "
            f"{source}: set --mapping to a CSV file with the columns label and class, or to one of "
            f"{_names()}."
        )
    return mapped


def _mapping(mapping: str, classes: Sequence[str]) -> dict[str, str]:
    """The class of each label by its key, as a table has it."""
    path = Path(mapping).expanduser()
    columns = ("label", "class", "ham10000")
    table = read_csv(path, columns, columns) if path.is_file() else _read(mapping)
    column = "class" if "class" in table else "ham10000"
    if lacking := {"label", column} - set(table):
        raise DataError(
            f"{mapping} has no column {min(lacking)}: a mapping has the columns label and class."
        )
    table = table.dropna(subset="label").fillna({column: ""})
    if unknown := sorted(set(table[column]) - {"", *classes}):
        raise DataError(
            f"{mapping} maps labels to {', '.join(unknown)}, but the run's classes are "
            f"{', '.join(classes)}: correct its column {column}, or leave it empty."
        )
    classes_of = table.groupby(table["label"].map(_key))[column].agg(lambda names: sorted({*names}))
    for label, names in classes_of.items():
        if len(names) > 1:
            raise DataError(f"{mapping} maps {label} to {' and '.join(names)}: keep one row.")
    return {str(label): names[0] for label, names in classes_of.items()}


def _key(label: str) -> str:
    return code_of(label).casefold()


def _names() -> str:
    return ", ".join(sorted(file.stem for file in FOLDER.glob("*.csv")))


def _read(name: str) -> pd.DataFrame:
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        raise DataError(f"There is no mapping {name}: choose one of {_names()}.")
    return pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
