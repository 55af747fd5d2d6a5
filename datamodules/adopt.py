"""Description of a folder of images, as its publisher left it, by a table and a YAML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from datamodules.adopt_checks import duplicates as near_duplicates
from datamodules.adopt_checks import listing, located, problems, remarks
from datamodules.adopt_isic import archive, challenge, ham10000, milk10k
from datamodules.adopt_sets import class_folders, derm7pt, dermamnist, fitzpatrick17k, pad_ufes_20
from datamodules.adopt_source import TABLE, Adopted, Source, code_of, coded, same
from datamodules.errors import DataError
from datamodules.folders import temporary_folder
from datamodules.table_columns import DATASET

IMAGES = "images"  # folder of the images that were unpacked
LAYOUTS = (
    ham10000,
    challenge,
    milk10k,
    pad_ufes_20,
    derm7pt,
    fitzpatrick17k,
    archive,
    dermamnist,
    class_folders,  # last, because any folders of images fit
)


def adopt(
    folder: Path,
    out: Path | None = None,
    kind: str = "",
    label: str = "",
    skip: bool = False,
    overwrite: bool = False,
    duplicates: Path | None = None,
) -> None:
    """Write table.csv and dataset.yaml for images of your own or of a public data set.

    Known layouts: a folder per class, also below train, val and test; HAM10000 as on Kaggle; the
    tables of ISIC 2018, ISIC 2019 and MILK10k; metadata.csv of isic-cli, as for HIBA; DermaMNIST's
    npz; PAD-UFES-20; Derm7pt; Fitzpatrick17k and its cleaned list. The report says what was
    assumed. Nothing is written if there are problems.

    Args:
        folder: Folder of the images and tables, or DermaMNIST's npz. Its files are not changed.
        out: Folder of table.csv and dataset.yaml. By default the folder itself.
        kind: Kind of the images to take, dermoscopic or clinical. By default all.
        label: Column of the labels, where the layout has several.
        skip: Whether to leave out the rows with problems.
        overwrite: Whether to replace an earlier table.csv and dataset.yaml.
        duplicates: CSV file for near-duplicates in different groups, which are searched only then.

    Raises:
        DataError: No layout fits, or there are problems.
    """
    folder = folder.expanduser()
    target = (out or (folder.parent if folder.is_file() else folder)).expanduser()
    _refuse_existing(target, overwrite, DATASET, TABLE)
    source = Source(folder, label)
    adopted = recognize(source)
    source.refuse_misnamed(skip)
    if adopted.unpack:
        _refuse_existing(target, overwrite, IMAGES)
    print(f"Layout: {adopted.layout}")
    for sentence in adopted.assumed:
        print(f"  {sentence}")
    existing = next(place for place in (target, *target.absolute().parents) if place.exists())
    with temporary_folder(existing) as temporary:
        unpacked = Path(temporary, IMAGES)
        if adopted.unpack:
            unpacked.mkdir()
            adopted.unpack(unpacked)
            source = Source(unpacked)
        table, group = _checked(adopted, source, kind, skip)
        if duplicates is not None:
            _report_duplicates(table, group, duplicates)
        images = _common_folder(table)
        table = table.assign(image=_names(table, images, source))
        shown = Path(IMAGES) if adopted.unpack else _shown(images, target)
        record = _record(adopted, table, group, shown, _shown(folder / adopted.masks, target))
        if adopted.classes is None:
            table = table.assign(label=table["label"].map(code_of))
        _write(Path(temporary), target, adopted, table, record)
    print(f"Wrote {target / TABLE} and {target / DATASET}. Train with --data.root={target}.")


def recognize(source: Source) -> Adopted:
    """Read a source by the first layout that fits.

    Raises:
        DataError: None fits, or the data are not as the layout expects them.
    """
    if not source.path.exists():
        raise DataError(f"{source.path} does not exist: name a folder of images.")
    for layout in LAYOUTS:
        if (adopted := layout(source)) is not None:
            if source.label and not adopted.label_column:
                raise DataError(f"The layout {adopted.layout} has one label: leave out --label.")
            return adopted
    tables = ", ".join(map(source.name, source.headers)) or "no table"
    raise DataError(
        f"{source.path} has {len(source.photos):,} images and {tables}, which is none of the known "
        "layouts (`python -m datamodules adopt --help`). Put the images of each class into a "
        f"folder of its name, or write {DATASET} yourself: docs/guides/own_data.md."
    )


def _checked(found: Adopted, source: Source, kind: str, skip: bool) -> tuple[pd.DataFrame, str]:
    """The rows to be written and the column of their groups, after a report of all problems."""
    table = located(found.table.reset_index(drop=True), source)
    if unlisted := _unlisted(table, source):
        print(f"  {len(unlisted):,} images have no label and are left out: {listing(unlisted)}.")
    table = _of_kind(table, kind, found.layout)
    if (unlabeled := table["label"].isna() | table["image"].isna()).any():
        names = table.loc[unlabeled, "image"].astype(str).tolist()
        print(f"  {len(names):,} rows have no label and are left out: {listing(names)}.")
    table, group = _grouped(table[~unlabeled])
    table = _without_problems(table, found, skip)
    if (count := table["label"].nunique()) < 2:
        raise DataError(
            f"Nothing was written, because the images are of {count} classes: add those of others."
        )
    _summarize(table, group)
    return table, group


def _without_problems(table: pd.DataFrame, found: Adopted, skip: bool) -> pd.DataFrame:
    problem_of = {
        problem: rows
        for problem, rows in problems(table, found.classes).items()
        if (rows != "").any()
    }
    for problem, rows in problem_of.items():
        names = sorted(set(rows) - {""})
        print(f"Problem: {problem}, {_count(rows)}: {listing(names)}.")
    if problem_of and not skip:
        told = ", ".join(f"{problem} ({_count(rows)})" for problem, rows in problem_of.items())
        raise DataError(
            f"Nothing was written, because of {told}. Correct the files or tables, or leave these "
            "rows out with --skip."
        )
    fine = pd.Series(True, table.index)
    for rows in problem_of.values():
        fine &= rows == ""
    return table[fine]


def _count(rows: pd.Series) -> str:
    number = int((rows != "").sum())
    return f"{number:,} row{'s' if number > 1 else ''}"


def _unlisted(table: pd.DataFrame, source: Source) -> list[str]:
    """Images without a row, except for copies of those with one, as in Kaggle's HAM10000."""
    files = {file.name.casefold(): file for file in table["file"].dropna()}
    others = set(source.photos) - set(table["file"].dropna())
    return sorted(
        source.name(other)
        for other in others
        if (twin := files.get(other.name.casefold())) is None or not same(twin, other)
    )


def _of_kind(table: pd.DataFrame, kind: str, layout: str) -> pd.DataFrame:
    if not kind:
        return table
    known = sorted(table["kind"].dropna().unique()) if "kind" in table else []
    if kind not in known:
        raise DataError(
            f"{layout} has no images of the kind {kind}: "
            + (f"choose one of {', '.join(known)}." if known else "leave out --kind.")
        )
    return table[table["kind"] == kind]


def _grouped(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table, and the column of its groups: the patient if known, else the lesion."""
    lesion = "lesion" in table and table["lesion"].notna().any()
    if "patient" in table and table["patient"].notna().any():
        if lesion and table["patient"].isna().any():
            # One column must keep together what either column does.
            patient = table["patient"].groupby(table["lesion"]).transform("first")
            filled = table["patient"].fillna(patient).fillna(table["lesion"])
            count = int(table["patient"].isna().sum())
            table = table.assign(patient=filled)
            print(f"  {count:,} images have no patient and take their lesion's, or its id.")
        return table, "patient"
    return table, "lesion" if lesion else ""


def _summarize(table: pd.DataFrame, group: str) -> None:
    lone = int(table[group].isna().sum()) if group else len(table)
    count = lone + (table[group].nunique() if group else 0)
    if group:
        without = f", {lone:,} of which have no {group}" if lone else ""
        print(f"Groups: {count:,} by {group}, of {len(table):,} images{without}.")
    else:
        print(
            f"Groups: none known, so each of the {count:,} images is one. If images show the same "
            "lesion or person, add a column `lesion` or `patient`."
        )
    counts = table["label"].value_counts()
    print("Classes: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()) + ".")
    if "split" in table:
        splits = table["split"].replace("", "none").value_counts()
        print("Given split: " + ", ".join(f"{name} {n:,}" for name, n in splits.items()) + ".")
    for remark in remarks(table, group):
        print(f"Note: {remark}")


def _report_duplicates(table: pd.DataFrame, group: str, path: Path) -> None:
    pairs = near_duplicates(table, group)
    partial = path.with_name(f".partial.{path.name}")
    pairs.to_csv(partial, index=False, errors="backslashreplace")
    partial.replace(path)
    print(
        f"Near-duplicates: {len(pairs):,} pairs of images seem to show the same skin in different "
        f"groups, see {path}. Inspect them, and give the same lesions one group."
    )


def _common_folder(table: pd.DataFrame) -> Path:
    return Path(os.path.commonpath([file.parent for file in table["file"]]))


def _names(table: pd.DataFrame, images: Path, source: Source) -> list[str]:
    """Paths of the images in their folder, without the ending where that is unambiguous."""
    stems = pd.Series([photo.with_suffix("") for photo in source.files]).value_counts()
    return [
        (file.with_suffix("") if stems[file.with_suffix("")] == 1 else file)
        .relative_to(images)
        .as_posix()
        for file in table["file"]
    ]


def _shown(images: Path, target: Path) -> Path:
    """The folder of the images as ``dataset.yaml`` names it, relative where it is inside."""
    absolute = images.resolve()
    inside = absolute.is_relative_to(target.resolve())
    return absolute.relative_to(target.resolve()) if inside else absolute


def _record(
    found: Adopted, table: pd.DataFrame, group: str, images: Path, masks: Path
) -> dict[str, Any]:
    """The contents of ``dataset.yaml``."""
    present = table["label"].value_counts().index.tolist()  # the most frequent first
    record: dict[str, Any] = {"classes": coded(present)}
    if found.classes is not None:
        complete = found.classes.record()
        titles = {
            name: complete["classes"][name] for name in found.classes.names if name in present
        }
        # Groups, tasks and trees of the classes would name those that are absent.
        record = complete if len(titles) == len(present) == len(found.classes.names) else {}
        record |= {"classes": titles}
    record |= {"table": TABLE, "images": images.as_posix()}
    if found.masks:
        record["masks"] = masks.as_posix()
    return record | ({"group": group} if group else {})


def _write(
    temporary: Path, target: Path, found: Adopted, table: pd.DataFrame, record: dict[str, Any]
) -> None:
    """Write both files, and move them and the unpacked images to their places, the YAML last."""
    columns = [name for name in table if name not in ("file", "problem")]
    table[columns].to_csv(temporary / TABLE, index=False, errors="backslashreplace")
    comments = "".join(f"# {line}\n" for line in (f"Layout: {found.layout}.", *found.assumed))
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=100)
    (temporary / DATASET).write_text(comments + text, encoding="utf-8")
    target.mkdir(parents=True, exist_ok=True)
    if found.unpack:
        if (target / IMAGES).exists():
            os.replace(target / IMAGES, temporary / "old")
        os.replace(temporary / IMAGES, target / IMAGES)
    os.replace(temporary / TABLE, target / TABLE)
    os.replace(temporary / DATASET, target / DATASET)


def _refuse_existing(target: Path, overwrite: bool, *names: str) -> None:
    for name in names:
        if (target / name).exists() and not overwrite:
            raise DataError(
                f"{target / name} exists: set --out to another folder, or --overwrite to replace "
                "it."
            )
