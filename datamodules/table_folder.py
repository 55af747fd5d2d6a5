"""A data set as a table: a folder with ``dataset.yaml``, a CSV or Parquet file, and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from datamodules.classes import KEYS, Classes, read_yaml
from datamodules.data_folder import DataFolder
from datamodules.errors import MAX_LISTED, DataError
from datamodules.folders import listed, relative_files
from datamodules.pixels import is_photo
from datamodules.tables import UNKNOWN, read_csv

DATASET = "dataset.yaml"
TABLE_KEYS = {"table", "images", "masks", "columns", "group"}
# Columns of a table, and their names in a run's files, which are those of HAM10000.
RENAMED = {"image": "image_id", "label": "dx", "site": "localization"}
TEXT = ("image", "label", "lesion", "patient", "split", "mask")  # never read as numbers
GROUPS = ("lesion", "patient")
SPLITS = ("train", "val", "test")
ENDINGS = (".csv", ".tsv", ".parquet")


class TableFolder(DataFolder):
    """A data set that its ``dataset.yaml`` describes.

    The YAML file names the ``classes`` (see :class:`~datamodules.classes.Classes`) and may set
    ``table`` (file with a row per image), ``images`` and ``masks`` (folders), ``columns`` (the
    table's names of the columns, where they differ) and ``group`` (``lesion`` or ``patient``).
    The table has the columns ``image`` (path in the folder of images, with or without its ending)
    and ``label`` (class), and may have ``lesion``, ``patient``, ``split``, ``mask``, ``age``,
    ``sex``, ``site`` and ``tone``. Images of one group are never in two splits; without a column
    of groups, each image is a group of its own.

    Raises:
        DataError: The YAML file is unreadable or has unknown keys.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.path = root / DATASET
        self.options: Mapping[str, Any] = read_yaml(self.path)
        if unknown := self.options.keys() - KEYS - TABLE_KEYS:
            raise DataError(
                f"{self.path} has the unknown key {min(unknown)!r}: use "
                f"{', '.join(sorted(KEYS | TABLE_KEYS))}."
            )

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
    def table_file(self) -> Path:
        """The table: the file that ``table`` names, or the only table in the folder."""
        if name := self.options.get("table"):
            return self.root / str(name)
        found = [name for name in listed(self.root) if Path(name).suffix.lower() in ENDINGS]
        if len(found) != 1:
            raise DataError(
                f"{self.root} has {len(found)} tables ({', '.join(found) or 'no CSV or Parquet'}): "
                f"set `table` in {DATASET} to the one with a row per image."
            )
        return self.root / found[0]

    def read_table(self) -> pd.DataFrame:
        given = _read(self.table_file, self._names())
        table = given.rename(columns={theirs: ours for ours, theirs in self._names().items()})
        if problems := list(self._problems(table, given.columns.tolist())):
            listing = "".join(f"\n  - {problem}" for problem in problems)
            raise DataError(f"{self.table_file} cannot be used:{listing}")
        group = str(self.options.get("group", next((g for g in GROUPS if g in table), "")))
        table = table.assign(lesion_id=_groups(table, group), source="table")
        if "split" in table:
            table = table.rename(columns={"split": "given_split"}).fillna({"given_split": ""})
        table = table.rename(columns=RENAMED).sort_values("image_id", ignore_index=True)
        return table.assign(row=range(len(table)))

    def find_files(self, kind: str) -> Mapping[str, Path]:
        images = self.table["image_id"]
        if kind == "image":
            return _Files(self.images, self._image_names, images, images)
        names = _by_name(self.masks) if self.masks.is_dir() else {}
        return _Files(self.masks, names, images, self.table.get("mask", images))

    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        folder = self.images if kind == "image" else self.masks
        return (
            f"{len(image_ids)} {kind} files are missing in {folder}, that of {image_ids[0]} the "
            f"first: add them, or correct {self.table_file.name}."
        )

    def report_unused(self, used: pd.DataFrame) -> None:
        super().report_unused(used)
        files = [*self.image_files.values(), *self.mask_files.values()]
        inside = (file for file in files if file.is_relative_to(self.images))
        known = {file.relative_to(self.images).as_posix() for file in inside}
        if unused := sorted(set(self._image_names.values()) - known):
            more = " ..." if len(unused) > MAX_LISTED else ""
            print(
                f"{len(unused):,} files are left out, because {self.table_file.name} has no row "
                f"for them: {', '.join(unused[:MAX_LISTED])}{more}"
            )

    @cached_property
    def _image_names(self) -> Mapping[str, str]:
        if not self.images.is_dir():
            raise DataError(
                f"There is no folder {self.images}: set `images` in {DATASET} to the folder of the "
                "images."
            )
        return _by_name(self.images)

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
        lost = sorted(set(image.dropna()) - self._image_names.keys())
        yield from _rows("an image without a file", lost)
        if "split" in table:
            split = table["split"].fillna("")
            wrong = image[~split.isin(["", *SPLITS])] + " (" + split + ")"
            yield from _rows("a split other than train, val and test", wrong.dropna())


def _rows(problem: str, names: Any) -> Iterator[str]:
    named = [str(name) for name in names]
    if named:
        more = f" and {len(named) - MAX_LISTED} more" if len(named) > MAX_LISTED else ""
        rows = "row has" if len(named) == 1 else "rows have"
        yield f"{len(named):,} {rows} {problem}: {', '.join(named[:MAX_LISTED])}{more}."


def _read(path: Path, names: Mapping[str, str]) -> pd.DataFrame:
    if not path.exists():
        raise DataError(f"There is no table {path}: correct `table` in {DATASET}.")
    if path.suffix.lower() != ".parquet":
        return read_csv(path, [names[name] for name in TEXT])
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise DataError(
            f"{path} needs a reader of Parquet: `pip install pyarrow`, or save it as CSV."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a Parquet file ({error}): write it again.") from error
    texts = {names[name] for name in TEXT} & set(table)
    return table.astype(dict.fromkeys(texts, "str"))


def _groups(table: pd.DataFrame, group: str) -> pd.Series[str]:
    if not group:
        return table["image"]
    given = table[group].fillna("").str.strip()
    # An unknown patient's image is a group of its own, as an image of an unknown lesion is.
    return given.where(~given.str.lower().isin(UNKNOWN), table["image"])


def _by_name(folder: Path) -> dict[str, str]:
    """The photos below a folder: their paths in it by these paths with and without the ending.

    A name without ending that two files share stands for neither.
    """
    photos = [name for name in relative_files(folder) if is_photo(f"{folder}/{name}")]
    stems: dict[str, str | None] = {}
    for name in photos:
        stem = name.rpartition(".")[0]
        stems[stem] = None if stem in stems else name
    named = {stem: name for stem, name in stems.items() if stem and name}
    return named | dict(zip(photos, photos, strict=True))


class _Files(Mapping[str, Path]):
    """Files of a folder by image id, without an object for each of a million files.

    Args:
        folder: The folder.
        known: Paths in the folder by the names that stand for them.
        images: Ids of the images.
        names: Name that stands for the file of each image.
    """

    def __init__(
        self, folder: Path, known: Mapping[str, str], images: Iterable[str], names: Iterable[str]
    ) -> None:
        self.folder = folder
        self.names = {
            image: known[name] for image, name in zip(images, names, strict=True) if name in known
        }

    def __getitem__(self, image: str) -> Path:
        return self.folder / self.names[image]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
