"""Problems of the images and labels of an adopted data set, and remarks on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from datamodules.adopt_source import Source
from datamodules.classes import Classes
from datamodules.duplicates import Fingerprint, near_duplicates
from datamodules.errors import MAX_LISTED, DataError
from datamodules.pixels import read_rgb, reason
from datamodules.progress import track


def located(table: pd.DataFrame, source: Source) -> pd.DataFrame:
    """The table with the ``file`` of each image, and the ``problem`` of finding it, if any."""
    candidates = [source.find(name) for name in table["image"]]
    problem = [
        "no file" if not files else "several files of this name" if len(files) > 1 else ""
        for files in candidates
    ]
    first = pd.Series(
        [files[0] if files else None for files in candidates], table.index, dtype=object
    )
    return table.assign(file=first, problem=problem)


def problems(table: pd.DataFrame, classes: Classes | None) -> Mapping[str, pd.Series]:
    """The rows of each problem, as one string per row that is empty where there is none.

    Args:
        table: Rows with a label, with their ``file`` from :func:`located`.
        classes: Classes of the layout; none if any label is a class.
    """
    image, label = table["image"], table["label"]
    told = image + " (" + label + ")"
    again = table["file"].duplicated() & table["file"].notna()
    unknown = ~label.isin(classes.names if classes else label)
    content = _same_content(table)
    several = label.groupby(content).transform("nunique") > 1
    labels = label.groupby(content).transform(lambda each: ", ".join(sorted(set(each))))
    masks = {
        "no file": (table["problem"] == "no file", image),
        "several files of that name": (table["problem"].str.startswith("several"), image),
        "unreadable": _unreadable(table),
        "two labels for one image": (several, image + " (" + labels + ")"),
        "an image that has another row": (again & ~several, image),
        "an unknown label": (unknown, told),
    }
    if {"lesion", "patient"} <= set(table):
        patients = table["patient"].groupby(table["lesion"]).transform("nunique")
        masks["a lesion that several patients have"] = (patients > 1, image)
    return {problem: names.where(mask, "") for problem, (mask, names) in masks.items()}


def _unreadable(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Files whose first bytes are not those of an image; `make verify` would decode them all."""
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(_reason, table["file"]))
    told = pd.Series(reasons, table.index, dtype=object)
    return told != "", table["image"] + " (" + told + ")"


def _reason(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        with Image.open(file):
            return ""
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        return reason(file, error)


def _same_content(table: pd.DataFrame) -> pd.Series:
    """A key per row, equal for the same bytes; only files of equal size are read."""
    files = table["file"].dropna().drop_duplicates()
    sizes = files.map(lambda file: file.stat().st_size if file.exists() else -1)
    twins = files[sizes.duplicated(keep=False) & (sizes > 0)]
    digests = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in twins}
    keys = table["file"].map(lambda file: digests.get(file, str(file)))
    return keys.where(table["file"].notna(), table["image"])


def remarks(table: pd.DataFrame, group: str) -> Iterator[str]:
    """Sentences about what is not wrong but worth knowing.

    Args:
        table: The rows to be written.
        group: Column of the groups, empty if each image is a group of its own.
    """
    groups = table[group].fillna(table["image"]) if group else table["image"]
    content = _same_content(table)
    spread = groups.groupby(content).nunique()
    if copies := int((spread > 1).sum()):
        first = table.loc[content == spread.idxmax(), "image"].head(2)
        yield (
            f"{copies:,} images are in several groups as identical files, {' and '.join(first)} "
            "among them: give them one group, or remove the copies."
        )
    if group and (mixed := int((table["label"].groupby(groups).nunique() > 1).sum())):
        yield f"{mixed:,} groups have images of several classes; a split keeps them together."
    if group and "split" in table:
        separated = table["split"].replace("", np.nan).groupby(groups).nunique() > 1
        if separated.any():
            yield (
                f"The given split separates the images of {int(separated.sum()):,} groups, so "
                "--data.split=Official refuses it: use --data.split=Stratified."
            )
    if "kind" in table and table["kind"].nunique() > 1:
        counts = ", ".join(f"{n:,} {kind}" for kind, n in table["kind"].value_counts().items())
        yield f"There are images of several kinds ({counts}): --kind takes one of them."


def duplicates(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Pairs of images that seem to show the same skin in different groups, as ``verify`` finds.

    Returns:
        A row per pair: both images, their groups and labels, and the keypoints that agree.
    """
    with ThreadPoolExecutor() as pool:
        prints = pool.map(_fingerprint, table["file"])
        fingerprints = list(track(prints, "Decoding", len(table)))
    groups = table[group].fillna(table["image"]) if group else table["image"]
    pairs = near_duplicates(fingerprints, groups.tolist())
    first, second, keypoints = np.array(pairs, dtype=int).reshape(-1, 3).T
    columns = {"image": table["image"], "group": groups, "label": table["label"]}
    rows = {name: values.to_numpy() for name, values in columns.items()}
    both = {
        f"{prefix}{name}": values[index]
        for prefix, index in (("", first), ("other_", second))
        for name, values in rows.items()
    }
    return pd.DataFrame(both | {"keypoints": keypoints})


def _fingerprint(file: Path) -> Fingerprint:
    try:
        return Fingerprint.of(read_rgb(file))
    except Exception as error:  # as in _reason
        raise DataError(f"{file} is damaged ({reason(file, error)}): replace it.") from error


def listing(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return f"{', '.join(names[:MAX_LISTED])}{more}"
