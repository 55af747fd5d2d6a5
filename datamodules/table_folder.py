"""A data set as a table: a folder with ``dataset.yaml``, a CSV or Parquet file, and images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.boxes import Box
from datamodules.cache import user_cache
from datamodules.classes import KEYS, Classes, read_yaml
from datamodules.data_folder import DataFolder
from datamodules.errors import MAX_LISTED, DataError
from datamodules.folders import listed, scan
from datamodules.kept_table import kept_table
from datamodules.pixels import has_photo_ending, is_photo
from datamodules.table_columns import (
    DATASET,
    RENAMED,
    TEXT,
    groups,
    read_rows,
    readable,
    under_our_names,
)

VERSION = 2  # increase it when the table of the same files changes
TABLE_KEYS = {"table", "images", "masks", "columns", "group"}
UNUSED = "unused files"  # an attribute of the table
GROUPS = ("lesion", "patient")
SPLITS = ("train", "val", "test")
ENDINGS = (".csv", ".tsv", ".parquet")


class TableFolder(DataFolder):
    """A data set that its ``dataset.yaml`` describes.

    The YAML file names the ``classes`` (see :class:`~datamodules.classes.Classes`) and may set
    ``table`` (file with a row per image), ``images`` and ``masks`` (folders), ``columns`` (the
    table's names of the columns, where they differ) and ``group`` (``lesion`` or ``patient``).
    The table has the columns ``image`` (path in the folder of images, with or without its ending)
    and ``label`` (class), and may have ``lesion``, ``patient``, ``split``, ``mask``, ``box``,
    ``age``, ``sex``, ``site`` and ``tone``. Images of one group are never in two splits; without a
    column of groups, each image is a group of its own.

    Raises:
        DataError: The YAML file is unreadable or has unknown keys.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.path = root / DATASET
        self._searched: set[str] = set()  # real paths of the folders that were searched
        given = read_yaml(self.path)
        self.options: Mapping[str, Any] = {k: v for k, v in given.items() if v is not None}
        if unknown := self.options.keys() - KEYS - TABLE_KEYS:
            raise DataError(
                f"{self.path} has the unknown key {min(map(str, unknown))!r}: use "
                f"{', '.join(sorted(KEYS | TABLE_KEYS))}."
            )
        for key in sorted(TABLE_KEYS - {"columns"}):
            if not isinstance(value := self.options.get(key, ""), str):
                raise DataError(f"{self.path}: `{key}` is {value!r}: give a name, or leave it out.")

    @cached_property
    def classes(self) -> Classes:
        return Classes.parse(self.options, str(self.path))

    @property
    def images(self) -> Path:
        """Folder of the images."""
        return self.root / self.options.get("images", "images")

    @property
    def masks(self) -> Path:
        """Folder of the masks."""
        return self.root / self.options.get("masks", "masks")

    @property
    def group(self) -> str:
        """The table's column of groups: ``lesion``, ``patient``, or ``image`` without any."""
        return self._group(self.table) or "image"

    @property
    def table_file(self) -> Path:
        """The table: the file that ``table`` names, or the only table in the folder."""
        if name := self.options.get("table"):
            return self.root / str(name)
        tables = [name for name in listed(self.root) if Path(name).suffix.lower() in ENDINGS]
        if len(tables) != 1:
            raise DataError(
                f"{self.root} has {len(tables)} tables "
                f"({', '.join(tables) or 'no CSV or Parquet'}): set `table` in {DATASET} to the "
                "one with a row per image."
            )
        return self.root / tables[0]

    def read_table(self) -> pd.DataFrame:
        options = f"{VERSION} {self.root.resolve()} {sorted(self.options.items())}"
        file = f"table-{hashlib.sha256(options.encode()).hexdigest()[:12]}.arrow"
        folders = [self.root / "cache", user_cache()]
        table, self.key = kept_table(folders, file, self._checked_table, self._made_from)
        return table

    def file_names(self, kind: str, rows: pd.DataFrame) -> pd.Series[str]:
        none = pd.Series(None, rows.index, dtype="str")
        return rows.get(f"{kind}_file", none)

    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        folder = self.images if kind == "image" else self.masks
        return (
            f"{len(image_ids)} {kind} files are missing in {folder}, that of {image_ids[0]} the "
            f"first: add them, or correct {self.table_file.name}."
        )

    def report_unused(self, used: pd.DataFrame) -> None:
        super().report_unused(used)
        number, first = self.table.attrs[UNUSED]
        if number:
            more = " ..." if number > len(first) else ""
            print(
                f"{number:,} files are left out, because {self.table_file.name} has no row for "
                f"them: {', '.join(first)}{more}"
            )

    def _checked_table(self) -> pd.DataFrame:
        if not self.images.is_dir():
            raise DataError(
                f"There is no folder {self.images}: set `images` in {DATASET} to the folder of the "
                "images."
            )
        if "masks" in self.options and not self.masks.is_dir():
            raise DataError(
                f"There is no folder {self.masks}: correct `masks` in {DATASET}, or leave it out."
            )
        given = read_rows(self.table_file, self._names())
        table = under_our_names(given, self._names())
        photos = self._photos("images")
        if "image" in table:
            table["image_file"] = self._located("images", photos, table["image"])
        if problems := list(self._problems(table, given.columns.tolist())):
            listing = "".join(f"\n  - {problem}" for problem in problems)
            raise DataError(f"{self.table_file} cannot be used:{listing}")
        table = table.drop(columns="mask_file", errors="ignore")
        if self.masks.is_dir():
            names = table.get("mask", table["image"])
            table["mask_file"] = self._located("masks", self._photos("masks"), names)
        if "box" in table:
            files = table.get("mask_file", pd.Series(None, table.index, dtype="str"))
            table["mask_file"] = files.fillna(_boxed(table["image_file"], table["box"]))
        table = table.assign(lesion_id=groups(table, self._group(table)), source="table")
        if "split" in table:
            table = table.rename(columns={"split": "given_split"}).fillna({"given_split": ""})
        table = table.rename(columns=RENAMED).sort_values("image_id", ignore_index=True)
        table = table.assign(row=range(len(table)))
        table.attrs[UNUSED] = self._unused(photos, table)
        return table

    def _unused(self, photos: pd.Series[str], table: pd.DataFrame) -> tuple[int, list[str]]:
        """The number of photos that the table does not name, and some of them."""
        files = [self.file_names(kind, table).dropna() for kind in ("image", "mask")]
        # pandas' isin makes a string of Python of each of a million names.
        used = pc.is_in(pa.array(photos), pa.array(pd.concat(files)))
        unused = photos[~np.asarray(used)]
        return len(unused), unused[:MAX_LISTED].str[len(self._prefix("images")) :].tolist()

    def _made_from(self) -> Iterator[str]:
        """The files and folders that the table was made from."""
        yield from map(str, (self.path, self.table_file))
        yield from sorted(self._searched)

    def _prefix(self, kind: str) -> str:
        """Beginning of the paths from the data folder of all ``images`` or ``masks``."""
        folder = Path(self.options.get(kind, kind)).as_posix()
        return "" if folder == "." else f"{folder}/"

    def _photos(self, kind: str) -> pd.Series[str]:
        """The photos in the folder of ``images`` or ``masks``, as paths from the data folder."""
        cache = os.path.realpath(self.root / "cache")  # not searched
        searched = {cache}
        names = [
            readable(name)
            for name, entry in scan(self.root / self._prefix(kind), searched, self._prefix(kind))
            if (entry.is_file(follow_symlinks=False) and has_photo_ending(name))
            or is_photo(entry.path)
        ]
        self._searched |= searched - {cache}
        return pd.Series(names, dtype="str").sort_values(ignore_index=True)

    def _located(self, kind: str, photos: pd.Series[str], names: pd.Series[str]) -> pd.Series[str]:
        """The photo that each name stands for: a path in the folder, with or without the ending.

        A name without ending that two photos share stands for neither.
        """
        stems = photos.str.replace(r"\.[^.]*$", "", regex=True)
        number, _ = stems.factorize()
        only = np.bincount(number)[number] == 1 if len(photos) else []
        known = pd.concat([photos, stems[only]], ignore_index=True)
        files = pd.concat([photos, photos[only]], ignore_index=True)
        at = pc.index_in(pa.array(self._prefix(kind) + names), pa.array(known))
        return pd.Series(pa.array(files).take(at), names.index, dtype="str")

    def _group(self, table: pd.DataFrame) -> str:
        return str(self.options.get("group", next((g for g in GROUPS if g in table), "")))

    def _names(self) -> dict[str, str]:
        """The table's name of each of our columns."""
        given = self.options.get("columns") or {}
        if not isinstance(given, Mapping):
            raise DataError(
                f"{self.path}: `columns` is {given!r}: map our columns to those of the table, such "
                "as {label: diagnosis}."
            )
        return {name: str(given.get(name, name)) for name in (*TEXT, *given)}

    def _problems(self, table: pd.DataFrame, given: list[str]) -> Iterator[str]:
        """Everything that makes the table, whose ``given`` columns are renamed, unusable."""
        group = self.options.get("group")
        required = ["image", "label", *([group] if group else [])]
        if missing := [name for name in required if name not in table]:
            theirs = [self._names().get(name, name) for name in missing]
            yield (
                f"It has no column {', '.join(theirs)}, only {', '.join(map(str, given))}: map "
                f"them in {DATASET}, such as `columns: {{{missing[0]}: NAME}}`."
            )
            return
        image, label = table["image"], table["label"]
        yield from _rows("no image or no label", image[image.isna() | label.isna()].index + 2)
        unknown = ~label.isin(self.classes.names) & label.notna()
        names = label[unknown] + " (" + image[unknown] + ")"
        yield from _rows(f"a label that is not one of {', '.join(self.classes.names)}", names)
        again = table[image.duplicated(keep=False) & image.notna()]
        labels = again.dropna(subset="label").groupby("image")["label"].agg(set)
        both = {image: each for image, each in labels.items() if len(each) > 1}
        told = [f"{image} ({', '.join(sorted(each))})" for image, each in both.items()]
        yield from _rows("two labels for one image", told)
        yield from _rows("an image that has another row", sorted(set(again["image"]) - set(both)))
        lost = image[table["image_file"].isna() & image.notna()].unique()
        yield from _rows("an image without a file", sorted(lost))
        if "split" in table:
            split = table["split"].fillna("")
            wrong = image[~split.isin(["", *SPLITS])] + " (" + split + ")"
            yield from _rows("a split other than train, val and test", wrong.dropna())
        if "box" in table:
            yield from _rows("a bad box", self._bad_boxes(table))

    def _bad_boxes(self, table: pd.DataFrame) -> list[str]:
        """The images whose box is not one, or ends outside of the image."""

        def problem(image: str, file: str, text: str) -> str:
            try:
                box = Box.parse(text)
            except ValueError:
                return f"{image} ({text} is not x y width height in pixels)"
            try:
                fits = box.fits(self.root / file)
            except Exception:  # of any reader; decoding the image will report it
                return ""
            return "" if fits else f"{image} ({text} ends outside of the image)"

        rows = table[["image", "image_file", "box"]].dropna()
        with ThreadPoolExecutor() as pool:
            return [told for told in pool.map(problem, *(rows[name] for name in rows)) if told]


def _boxed(images: pd.Series[str], boxes: pd.Series[str]) -> pd.Series[str]:
    """The names of the boxes in the images, where there are any."""
    boxes = boxes.dropna()
    named = zip(boxes, images[boxes.index], strict=True)
    names = [Box.parse(text).of(image) for text, image in named]
    return pd.Series(names, boxes.index, dtype="str").reindex(images.index)


def _rows(problem: str, names: Any) -> Iterator[str]:
    named = [str(name) for name in names]
    if named:
        more = f" and {len(named) - MAX_LISTED} more" if len(named) > MAX_LISTED else ""
        rows = "row has" if len(named) == 1 else "rows have"
        yield f"{len(named):,} {rows} {problem}: {', '.join(named[:MAX_LISTED])}{more}."
