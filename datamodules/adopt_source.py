"""A folder of images as its publisher left it: its photos, its tables, and what they tell."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from filecmp import cmp
from functools import cached_property
from pathlib import Path, PurePosixPath

import pandas as pd

from datamodules.classes import Classes
from datamodules.errors import MAX_LISTED, DataError
from datamodules.folders import files_below
from datamodules.pixels import is_photo
from datamodules.table_columns import DATASET, readable
from datamodules.tables import UNKNOWN, read_csv

ENDINGS = {".csv", ".tsv", ".tab"}
TABLE = "table.csv"  # of the adopted data set
FOLDERS = {"cache", "masks"}  # at the top; they hold no images of the data set
SEGMENTATION = "segmentation"  # part of the names of folders of masks


@dataclass(frozen=True)
class Adopted:
    """A data set as a layout describes it.

    Args:
        layout: Name of the layout, for the report.
        table: One row per image, all values as strings. ``image`` is the file's name or path, with
            or without its ending, and ``label`` the class, missing if unknown. Optional columns
            are ``lesion``, ``patient``, ``split``, ``kind``, ``mask``, ``age``, ``sex``, ``site``
            and ``tone``; others are kept.
        assumed: Assumptions of the layout's reader, as sentences.
        classes: All classes of the layout, or none if any label is a class.
        label_column: Column of the labels, if the table has others that might be used.
        masks: Folder of the masks, relative to the source.
        unpack: Writes the images into a folder, if the source holds them in an archive.
    """

    layout: str
    table: pd.DataFrame
    assumed: list[str]
    classes: Classes | None = None
    label_column: str = ""
    masks: str = ""
    unpack: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Source:
    """The files below a folder, searched once.

    Args:
        path: The folder, or a single file.
        label: Column of the labels that the user chose, empty for that of the layout.
    """

    path: Path
    label: str = ""

    @cached_property
    def files(self) -> list[Path]:
        """All files, without those that a training or an earlier adoption wrote."""
        if self.path.is_file():
            return [self.path]
        written = FOLDERS | ({TABLE} if (self.path / DATASET).exists() else set())
        return [file for file in files_below(self.path) if self._parts(file)[0] not in written]

    @cached_property
    def photos(self) -> list[Path]:
        """All images, without lesion masks."""
        return [
            file
            for file in self.files
            if not any(SEGMENTATION in part.lower() for part in self._parts(file)[:-1])
            and is_photo(file)
            and readable(self.name(file)) == self.name(file)
        ]

    def refuse_misnamed(self, skip: bool) -> None:
        """Refuse images whose names no table can hold, or report that they are left out.

        Raises:
            DataError: There are such images, and they are not to be skipped.
        """
        names = [readable(name) for name in map(self.name, self.files) if readable(name) != name]
        told = f"{len(names):,} files have a name that is not in UTF-8"
        if names and not skip:
            raise DataError(
                f"Nothing was written, because {told}, {names[0]} the first: rename them, or leave "
                "them out with --skip."
            )
        if names:
            print(f"  {told} and are left out: {', '.join(names[:MAX_LISTED])}.")

    @cached_property
    def headers(self) -> Mapping[Path, list[str]]:
        """The column names of each table."""
        return {file: _header(file) for file in self.files if file.suffix.lower() in ENDINGS}

    def tables(self, *columns: str) -> list[Path]:
        """The tables that have all these columns."""
        return [file for file, header in self.headers.items() if set(columns) <= set(header)]

    def table(self, *columns: str) -> Path | None:
        """The only table that has all these columns, None if there is none.

        Raises:
            DataError: There are several.
        """
        tables = self.tables(*columns)
        if len(tables) > 1:
            raise DataError(
                f"{self.path} has {len(tables)} tables with the columns {', '.join(columns)}: "
                f"{', '.join(map(self.name, tables))}. Adopt the folder of one of them."
            )
        return tables[0] if tables else None

    def read(self, table: Path) -> pd.DataFrame:
        """A table with all values as strings; unknown values are missing."""
        values = read_csv(table, self.headers[table])
        stripped = values.apply(lambda column: column.astype("string").str.strip())
        known = stripped.where(~stripped.apply(lambda column: column.str.lower().isin(UNKNOWN)))
        return known.astype(object).where(known.notna(), None)

    def labels(self, table: pd.DataFrame, default: str) -> str:
        """The column of the labels: the user's choice, or the default.

        Raises:
            DataError: The table has no such column.
        """
        column = self.label or default
        if column not in table:
            raise DataError(
                f"The table has no column {column}: set --label to one of "
                f"{', '.join(map(str, table))}."
            )
        return column

    def name(self, file: Path) -> str:
        """The path of a file relative to the source."""
        return file.name if file == self.path else file.relative_to(self.path).as_posix()

    def find(self, name: str) -> list[Path]:
        """The photos of this name, without copies of the first.

        The name may lack folders and the ending, and differ in case.
        """
        if name in self._by_path:
            return [self._by_path[name]]
        stem = str(PurePosixPath(name).with_suffix("")) if name else ""
        files = self._by_name.get(_key(name)) or self._by_name.get(_key(stem), [])
        return [file for i, file in enumerate(files) if i == 0 or not same(files[0], file)]

    @cached_property
    def _by_path(self) -> Mapping[str, Path]:
        return {self.name(file): file for file in self.photos}

    @cached_property
    def _by_name(self) -> Mapping[str, list[Path]]:
        # Kaggle's copies of HAM10000 hold each image twice, in folders that differ in case.
        found: dict[str, list[Path]] = defaultdict(list)
        for file in self.photos:
            parts = self._parts(file)
            names = {"/".join(parts[-depth:]) for depth in range(1, len(parts) + 1)}
            for name in names | {str(PurePosixPath(name).with_suffix("")) for name in names}:
                found[_key(name)].append(file)
        return found

    def _parts(self, file: Path) -> tuple[str, ...]:
        return PurePosixPath(self.name(file)).parts


def code_of(label: str) -> str:
    """The code of a class whose label has spaces, such as clark_nevus."""
    return re.sub(r"[^\w.+-]+", "_", label.strip()).strip("_")


def coded(labels: list[str]) -> list[str] | dict[str, str]:
    """Labels as classes: themselves, or codes with the labels as titles if some have spaces.

    Raises:
        DataError: Two labels have the same code, or one has none.
    """
    titles = {code_of(label): label for label in labels}
    if "" in titles:
        raise DataError(f"The label {titles['']!r} has neither letters nor digits: rename it.")
    if len(titles) < len(labels):
        raise DataError(f"Some labels differ only in spaces or signs: rename one of {labels}.")
    return labels if list(titles) == labels else titles


def same(first: Path, second: Path) -> bool:
    """Whether two files have the same content; a dangling link has none."""
    return first.exists() and second.exists() and cmp(first, second, shallow=False)


def renamed(table: pd.DataFrame, **names: str) -> pd.DataFrame:
    """Those of the columns ``ours=theirs`` that a table has, under our names."""
    return pd.DataFrame({ours: table[name] for ours, name in names.items() if name in table})


def kinds(image_types: pd.Series) -> pd.Series:
    """``dermoscopic`` or ``clinical`` for the archive's types, such as "clinical: close-up"."""
    first = image_types.str.partition(":")[0].str.strip().str.lower()
    return first.where(first.isin(["dermoscopic", "clinical"]), image_types)


def _key(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _header(path: Path) -> list[str]:
    """The column names in the first line; tables of pixels are too large to read for that."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    separator = max(",\t;|", key=line.count)
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
