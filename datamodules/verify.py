"""Names what is missing, broken or unexpected in an installed release."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules.dataset import (
    CLASSES,
    IMAGE_FOLDERS,
    MASK_FOLDER,
    METADATA,
    NO_LESION,
    OFFICIAL,
    SAME_LESION,
    SHOWN,
    DataError,
    from_one_hot,
    read_table,
    release_table,
    standard,
    without_lesion_id,
)
from datamodules.duplicates import Fingerprint, near_duplicates
from datamodules.folders import listed
from datamodules.pixels import read_inside, read_rgb, reason
from datamodules.progress import track
from datamodules.tables import read_csv

VAL, TEST = OFFICIAL["val"], OFFICIAL["test"]
IMAGE, MASK = r"ISIC_\d{7}\.jpg", r"ISIC_\d{7}_segmentation\.png"

RELEASED = (10_015, 7_470)  # images and lesions


def verify(root: Path = Path("data/ham10000"), duplicates: Path | None = None) -> None:
    """Decodes every image and mask, and names the files that are missing, broken or unexpected.

    It also prints images that show the same skin under different lesion ids, or in HAM10000 and in
    an official set. These are no problem of the files, and nothing is changed.

    Args:
        root: Where HAM10000 is installed.
        duplicates: A CSV file to write all these pairs of images to.
    """
    problems = differences(root)
    problems["unreadable"], fingerprints = _decoded(root)
    report(root, problems)
    images, lesions, lone = _counts(root / METADATA)
    counts = {f"masks in {MASK_FOLDER}": len(listed(root / MASK_FOLDER))}
    counts |= {
        f"images in {part}_Input": len(listed(root / f"{part}_Input")) for part in (VAL, TEST)
    }
    others = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    print(f"{root}: {images:,} images of {lesions:,} lesions{others}; all can be read.")
    if lone:
        print(f"Note: {lone:,} images have no lesion_id: each counts as a lesion of its own.")
    if (images, lesions) != RELEASED:
        print("Note: the release has {:,} images of {:,} lesions.".format(*RELEASED))
    pairs = _near_duplicates(read_table(root), fingerprints)
    if duplicates is not None:
        partial = duplicates.with_name(f".partial.{duplicates.name}")
        pairs.to_csv(partial, index=False, errors="backslashreplace")
        partial.replace(duplicates)
        print(f"{duplicates} lists {len(pairs):,} pairs of near-duplicates.")
    _note(pairs)


def _counts(metadata: Path) -> tuple[int, int, int]:
    """Images, lesions as released, and images that count as lesions of their own."""
    table = release_table(metadata)
    return len(table), table["lesion_id"].nunique(), without_lesion_id(table)


def _near_duplicates(table: pd.DataFrame, fingerprints: dict[str, Fingerprint]) -> pd.DataFrame:
    """Pairs of images that may leak from one part into another, the surest first."""
    # All images of an official set are in one part, so pairs within it cannot leak.
    group = table["lesion_id"].where(table["source"] == "ham10000", table["source"])
    found = near_duplicates([fingerprints[image] for image in table["image_id"]], group.tolist())
    one, other, keypoints = np.array(found, dtype=int).reshape(-1, 3).T
    image, lesion, dx = (table[name].to_numpy() for name in ("image_id", "lesion_id", "dx"))
    ids = {"image_id": image[one], "other_image_id": image[other]}
    lesions = {"lesion_id": lesion[one], "other_lesion_id": lesion[other]}
    classes = {"dx": dx[one], "other_dx": dx[other]}
    return pd.DataFrame(ids | lesions | classes | {"keypoints": keypoints})


def _note(pairs: pd.DataFrame) -> None:
    if pairs.empty:
        return
    print(
        f"Note: {len(pairs):,} pairs of images seem to show the same skin under different lesion "
        "ids. Look at them. Two images of HAM10000 that show one lesion can be added to "
        f"{SAME_LESION}, which keeps them in one part of every split. An image of an official set "
        "that is also in HAM10000 was trained on: its score says nothing about new images."
    )
    shown = pairs.head(SHOWN)[["image_id", "other_image_id", "dx", "other_dx", "keypoints"]]
    for one, other, dx, other_dx, keypoints in shown.itertuples(index=False):
        print(f"  {one} ({dx}) {other} ({other_dx}): {keypoints} keypoints agree")
    if len(pairs) > SHOWN:
        print(f"  ... and {len(pairs) - SHOWN:,} more: --duplicates FILE.csv lists all")


def differences(root: Path) -> dict[str, list[str]]:
    """What the tables and the names of the files tell: problem to names."""
    problems: dict[str, list[str]] = defaultdict(list)
    ids = _ids(problems, root / METADATA)
    _compare(problems, root, ids, IMAGE_FOLDERS, ".jpg")
    if (root / MASK_FOLDER).exists():
        _compare(problems, root, ids, (MASK_FOLDER,), "_segmentation.png")
    for part in (VAL, TEST):
        table, folder = root / f"{part}_GroundTruth.csv", f"{part}_Input"
        if table.exists():
            _compare(problems, root, _ids(problems, table), (folder,), ".jpg")
        elif (root / folder).exists():
            problems["missing"].append(table.name)
    return problems


def _compare(
    problems: dict[str, list[str]],
    root: Path,
    ids: set[str],
    folders: tuple[str, ...],
    ending: str,
) -> None:
    expected = {image + ending for image in ids}
    found = Counter(standard(name) for folder in folders for name in listed(root / folder))
    optional = {NO_LESION + ending}
    problems["missing"] += sorted(expected - set(found) - optional)
    problems["in two folders"] += sorted(name for name in found if found[name] > 1)
    problems["unexpected"] += [
        f"{folder}/{name}"
        for folder in folders
        for name in listed(root / folder)
        if standard(name) not in expected | optional
    ]


def _ids(problems: dict[str, list[str]], path: Path) -> set[str]:
    if not path.exists():
        raise DataError(f"{path} is missing: `install` puts it there.")
    table = read_csv(path)
    if "image" in table and "dx" not in table:
        table = from_one_hot(path, table)
    if not {"image_id", "dx"} <= set(table) or table["image_id"].isna().any():
        raise DataError(f"{path} has no image_id or no dx in some row: install it again.")
    counts = Counter(table["image_id"])
    problems["in more than one row"] += sorted(name for name in counts if counts[name] > 1)
    unknown = table.loc[~table["dx"].isin(CLASSES), ["image_id", "dx"]]
    problems["of an unknown class"] += [f"{image} ({dx})" for image, dx in unknown.to_numpy()]
    return set(counts)


def _decoded(root: Path) -> tuple[list[str], dict[str, Fingerprint]]:
    """The files that cannot be read, and the fingerprint of each image by its id."""
    folders = (*IMAGE_FOLDERS, MASK_FOLDER, f"{VAL}_Input", f"{TEST}_Input")
    files = [
        root / folder / name
        for folder in folders
        for name in listed(root / folder)
        if re.fullmatch(f"{IMAGE}|{MASK}", standard(name))
    ]
    broken, fingerprints = [], {}
    with ThreadPoolExecutor() as pool:
        decoded = track(pool.map(_decode, files), "Decoding", len(files))
        for file, result in zip(files, decoded, strict=True):
            if isinstance(result, str):
                broken.append(f"{file.parent.name}/{file.name} ({result})")
            elif result is not None:
                fingerprints[file.stem] = result
    return broken, fingerprints


def _decode(path: Path) -> Fingerprint | str | None:
    """The fingerprint of an image, nothing for a mask, or why the file cannot be read."""
    try:
        if path.parent.name == MASK_FOLDER:
            read_inside(path)
            return None
        return Fingerprint.of(read_rgb(path))
    except Exception as error:  # PIL's decoders raise nearly anything on a damaged file
        return reason(path, error)


def report(root: Path, problems: dict[str, list[str]]) -> None:
    problems = {problem: names for problem, names in problems.items() if names}
    for problem, names in problems.items():
        more = [f"... and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
        print("\n  ".join([f"{problem.capitalize()}:", *names[:SHOWN], *more]))
    if problems:
        counts = ", ".join(f"{len(names):,} {problem}" for problem, names in problems.items())
        raise DataError(
            f"Of the files and rows of {root}, {counts}: move elsewhere what is there and "
            "wrong, and install again from a whole release, which puts back what is missing."
        )
