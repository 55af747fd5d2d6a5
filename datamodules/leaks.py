"""Search for images of another data set that a run was trained or validated on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datamodules.data_folder import DataFolder
from datamodules.duplicates import Fingerprint, near_duplicates
from datamodules.errors import DataError
from datamodules.pixels import read_rgb, reason
from datamodules.progress import track
from datamodules.tables import UNKNOWN

SAME_PIXELS = "same pixels"
SAME_IMAGE = "same image id"
SAME_GROUP = "same lesion or patient"
GROUPS = ("lesion_id", "lesion", "patient")  # each is compared with the same column only
MIN_SIMILARITY = 0.95  # of the colors of two copies of an image, in [-1, 1]
PAIR_COLUMNS = ["image_id", "seen_image_id", "dx", "seen_dx", "keypoints"]


@dataclass(frozen=True)
class Leaks:
    """Images of another data set that are not new to a run.

    Args:
        why: Why an image is not new, by image id; empty if it is new.
        near: Pairs of a new image and one that the run has seen which seem to show the same skin,
            the most certain first: both ids, both labels, and the keypoints that agree.
        remarks: Sentences about what could not be compared.
    """

    why: pd.Series[str]
    near: pd.DataFrame
    remarks: tuple[str, ...]


class Identity(NamedTuple):
    """Digest of an image's pixels, and the fingerprint that near-duplicates share."""

    pixels: str
    fingerprint: Fingerprint


def find_leaks(
    seen: pd.DataFrame, own: DataFolder | None, images: pd.DataFrame, other: DataFolder
) -> Leaks:
    """Find the images that a run has seen: by their pixels, their ids, and their lesion or patient.

    Two data sets may number their images alike by chance. Ids are therefore ignored if fewer than
    half of the images with an id in common look alike.

    Args:
        seen: Training and validation images of the run: ``image_id``, ``lesion_id`` and ``dx``.
        own: Data set of the run; without it, only ids are compared.
        images: Rows of the other data set's table.
        other: The other data set.

    Raises:
        DataError: An image file is missing or damaged.
    """
    mine, theirs = _files(own, seen), _files(other, images)
    if lost := sorted(set(images["image_id"]) - theirs.keys()):
        raise DataError(other.describe_missing("image", lost))
    identities = _identities({*mine.values(), *theirs.values()}) if mine else {}
    remarks = list(_remarks(own, len(mine), len(seen)))
    why = pd.Series("", index=images["image_id"], dtype=object)
    known = {identities[file].pixels for file in mine.values()}
    if identities:
        why[[identities[theirs[image]].pixels in known for image in why.index]] = SAME_PIXELS
    common = set(seen["image_id"]) & set(images["image_id"])
    if _share_ids([(identities[mine[i]], identities[theirs[i]]) for i in common if i in mine]):
        why = _by_id(why, _with_columns(seen, own), images)
    else:
        remarks.append(
            f"{len(common):,} image ids occur in both data sets, but these images look different: "
            "ids were ignored."
        )
    # Another image of a lesion that the run has seen.
    leaked = set(images.loc[(why != "").to_numpy(), "lesion_id"])
    why[(why == "").to_numpy() & images["lesion_id"].isin(leaked).to_numpy()] = SAME_GROUP
    new = images[(why == "").to_numpy()]
    return Leaks(why, _near(seen, mine, new, theirs, identities), tuple(remarks))


def _files(folder: DataFolder | None, images: pd.DataFrame) -> dict[str, Path]:
    if folder is None:
        return {}
    rows = folder.table[folder.table["image_id"].isin(images["image_id"])]
    present = rows[folder.file_names("image", rows).notna()]
    files = map(Path, folder.locate("image", present))
    return dict(zip(present["image_id"], files, strict=True))


def _remarks(own: DataFolder | None, available: int, seen: int) -> Iterable[str]:
    if not available:
        where = f"in {own.root}" if own else "on this machine"
        yield (
            f"The images that the run has seen are not {where}: only ids were compared, and copies "
            "under other names were not searched."
        )
    elif available < seen:
        yield f"{seen - available:,} of {seen:,} images that the run has seen are not available."


def _identities(files: Iterable[Path]) -> dict[Path, Identity]:
    ordered = sorted(files)
    # Threads suffice, because decoding, hashing and OpenCV release the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        identities = pool.map(_identity, ordered)
        return dict(
            zip(ordered, track(identities, "Searching for leaks", len(ordered)), strict=True)
        )


def _identity(file: Path) -> Identity:
    try:
        pixels = read_rgb(file)
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise DataError(f"{file} is damaged ({reason(file, error)}): replace it.") from error
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes())
    return Identity(digest.hexdigest(), Fingerprint.of(pixels))


def _share_ids(pairs: list[tuple[Identity, Identity]]) -> bool:
    """Whether ids have the same meaning in both data sets, given the images that share one."""
    colors = [(one.fingerprint.colors, other.fingerprint.colors) for one, other in pairs]
    alike = [float(one @ other) >= MIN_SIMILARITY for one, other in colors]
    return not alike or float(np.mean(alike)) >= 0.5


def _with_columns(seen: pd.DataFrame, own: DataFolder | None) -> pd.DataFrame:
    """The images that the run has seen, with lesions and patients as their table has them now."""
    if own is None:
        return seen
    more = own.table[["image_id", *(c for c in GROUPS[1:] if c in own.table)]]
    return seen.merge(more, on="image_id", how="left")


def _by_id(why: pd.Series[str], seen: pd.DataFrame, images: pd.DataFrame) -> pd.Series[str]:
    why = why.copy()
    same = images["image_id"].isin(set(seen["image_id"])).to_numpy()
    why[same & (why == "").to_numpy()] = SAME_IMAGE
    for column in GROUPS:
        if column in seen and column in images:
            shared = images[column].isin(_known(seen[column])).to_numpy()
            why[shared & (why == "").to_numpy()] = SAME_GROUP
    return why


def _known(ids: pd.Series[str]) -> set[str]:
    return {i for i in ids.dropna() if i.strip().lower() not in UNKNOWN}


def _near(
    seen: pd.DataFrame,
    mine: Mapping[str, Path],
    new: pd.DataFrame,
    theirs: Mapping[str, Path],
    identities: Mapping[Path, Identity],
) -> pd.DataFrame:
    """Pairs of a new image and one that the run has seen, of the same skin."""
    if not identities or new.empty:
        return pd.DataFrame(columns=PAIR_COLUMNS)
    seen = seen[seen["image_id"].isin(mine.keys())]
    files = [*(mine[i] for i in seen["image_id"]), *(theirs[i] for i in new["image_id"])]
    groups = ["seen"] * len(seen) + ["new"] * len(new)
    pairs = near_duplicates([identities[file].fingerprint for file in files], groups)
    first, second, keypoints = np.array(pairs, dtype=int).reshape(-1, 3).T
    second -= len(seen)
    columns = [new["image_id"], seen["image_id"], new["dx"], seen["dx"]]
    rows = [second, first, second, first]
    values = [column.to_numpy()[at] for column, at in zip(columns, rows, strict=True)]
    return pd.DataFrame(dict(zip(PAIR_COLUMNS, [*values, keypoints], strict=True)))
