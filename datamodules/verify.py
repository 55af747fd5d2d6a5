"""Check an installed release for missing, broken and unexpected files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules.classes import CLASSES
from datamodules.duplicates import Fingerprint, near_duplicates
from datamodules.errors import MAX_LISTED, DataError
from datamodules.folders import listed
from datamodules.labeled_images import open_folder
from datamodules.layout import (
    IMAGE_FOLDERS,
    MASK_FOLDER,
    METADATA,
    NO_LESION,
    OFFICIAL,
    released_name,
)
from datamodules.metadata import (
    SAME_LESION,
    from_one_hot,
    read_table,
    release_table,
    without_lesion_id,
)
from datamodules.pixels import read_inside, read_rgb, reason
from datamodules.progress import track
from datamodules.table_columns import DATASET
from datamodules.tables import read_csv
from datamodules.verify_table import verify_table, write_pairs

VAL, TEST = OFFICIAL["val"], OFFICIAL["test"]
IMAGE, MASK = r"ISIC_\d{7}\.jpg", r"ISIC_\d{7}_segmentation\.png"

RELEASED_COUNTS = (10_015, 7_470)  # images and lesions


def verify(root: Path = Path("data/ham10000"), duplicates: Path | None = None) -> None:
    """Decode every image and mask, and list files that are missing, broken or unexpected.

    Also lists pairs of images that show the same skin under different lesion ids, or both in
    HAM10000 and in an official set. These are no fault of the files, and no file is changed.

    Args:
        root: Folder of the installed release, or of a data set with a dataset.yaml.
        duplicates: CSV file to which all these pairs of images are written.
    """
    if (root / DATASET).exists():
        verify_table(open_folder(root), duplicates)
        return
    problems = differences(root)
    problems["unreadable"], fingerprints = _decoded(root)
    report(root, problems)
    images, lesions, lone = _counts(root / METADATA)
    counts = {f"masks in {MASK_FOLDER}": len(listed(root / MASK_FOLDER))}
    counts |= {
        f"images in {name}_Input": len(listed(root / f"{name}_Input")) for name in (VAL, TEST)
    }
    others = "".join(f", {count:,} {kind}" for kind, count in counts.items() if count)
    print(f"{root}: {images:,} images of {lesions:,} lesions{others}; all of them are readable.")
    if lone:
        print(f"Note: {lone:,} images have no lesion_id: each counts as a lesion of its own.")
    if (images, lesions) != RELEASED_COUNTS:
        print("Note: the release has {:,} images of {:,} lesions.".format(*RELEASED_COUNTS))
    pairs = _near_duplicates(read_table(root), fingerprints)
    if duplicates is not None:
        write_pairs(pairs, duplicates)
    _note(pairs)


def _counts(metadata: Path) -> tuple[int, int, int]:
    """The numbers of images, of released lesions, and of images without a known lesion."""
    table = release_table(metadata)
    return len(table), table["lesion_id"].nunique(), without_lesion_id(table)


def _near_duplicates(table: pd.DataFrame, fingerprints: dict[str, Fingerprint]) -> pd.DataFrame:
    """Pairs of images that may leak from one split into another, the most certain first."""
    # All images of an official set are in one split, so pairs within it cannot leak.
    group = table["lesion_id"].where(table["source"] == "ham10000", table["source"])
    pairs = near_duplicates([fingerprints[image] for image in table["image_id"]], group.tolist())
    first, second, keypoints = np.array(pairs, dtype=int).reshape(-1, 3).T
    image, lesion, dx = (table[name].to_numpy() for name in ("image_id", "lesion_id", "dx"))
    ids = {"image_id": image[first], "other_image_id": image[second]}
    lesions = {"lesion_id": lesion[first], "other_lesion_id": lesion[second]}
    classes = {"dx": dx[first], "other_dx": dx[second]}
    return pd.DataFrame(ids | lesions | classes | {"keypoints": keypoints})


def _note(pairs: pd.DataFrame) -> None:
    if pairs.empty:
        return
    print(
        f"Note: {len(pairs):,} pairs of images seem to show the same skin under different lesion "
        "ids; please inspect them. If two images of HAM10000 show one lesion, add the pair to "
        f"{SAME_LESION}, which keeps them in the same split. An image of an official set that is "
        "also in HAM10000 was trained on, so its score does not measure generalization."
    )
    columns = ["image_id", "other_image_id", "dx", "other_dx", "keypoints"]
    for first, second, dx, other_dx, n in pairs.head(MAX_LISTED)[columns].itertuples(index=False):
        print(f"  {first} ({dx}) {second} ({other_dx}): {n} keypoints agree")
    if len(pairs) > MAX_LISTED:
        print(f"  ... and {len(pairs) - MAX_LISTED:,} more; --duplicates FILE.csv writes all")


def differences(root: Path) -> dict[str, list[str]]:
    """The names of missing, repeated or unexpected files and rows, by problem."""
    problems: dict[str, list[str]] = defaultdict(list)
    ids = _ids(problems, root / METADATA)
    _compare(problems, root, ids, IMAGE_FOLDERS, ".jpg")
    if (root / MASK_FOLDER).exists():
        _compare(problems, root, ids, (MASK_FOLDER,), "_segmentation.png")
    for name in (VAL, TEST):
        table = root / f"{name}_GroundTruth.csv"
        folder = f"{name}_Input"
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
    counts = Counter(released_name(name) for folder in folders for name in listed(root / folder))
    optional = {NO_LESION + ending}
    problems["missing"] += sorted(expected - set(counts) - optional)
    problems["in two folders"] += sorted(name for name in counts if counts[name] > 1)
    problems["unexpected"] += [
        f"{folder}/{name}"
        for folder in folders
        for name in listed(root / folder)
        if released_name(name) not in expected | optional
    ]


def _ids(problems: dict[str, list[str]], path: Path) -> set[str]:
    if not path.exists():
        raise DataError(f"{path} is missing: run `make data` to install it.")
    table = read_csv(path)
    if "image" in table and "dx" not in table:
        table = from_one_hot(path, table)
    if not {"image_id", "dx"} <= set(table) or table["image_id"].isna().any():
        raise DataError(
            f"{path} has rows without image_id or dx: install it again with `make data`."
        )
    counts = Counter(table["image_id"])
    problems["in more than one row"] += sorted(name for name in counts if counts[name] > 1)
    unknown = table.loc[~table["dx"].isin(CLASSES), ["image_id", "dx"]]
    problems["of an unknown class"] += [f"{image} ({dx})" for image, dx in unknown.to_numpy()]
    return set(counts)


def _decoded(root: Path) -> tuple[list[str], dict[str, Fingerprint]]:
    """The unreadable files, and the fingerprint of each image by its id."""
    folders = (*IMAGE_FOLDERS, MASK_FOLDER, f"{VAL}_Input", f"{TEST}_Input")
    files = [
        root / folder / name
        for folder in folders
        for name in listed(root / folder)
        if re.fullmatch(f"{IMAGE}|{MASK}", released_name(name))
    ]
    broken = []
    fingerprints = {}
    with ThreadPoolExecutor() as pool:
        decoded = track(pool.map(_decode, files), "Decoding", len(files))
        for file, result in zip(files, decoded, strict=True):
            if isinstance(result, str):
                broken.append(f"{file.parent.name}/{file.name} ({result})")
            elif result is not None:
                fingerprints[file.stem] = result
    return broken, fingerprints


def _decode(path: Path) -> Fingerprint | str | None:
    """The fingerprint of an image, None for a mask, or the reason why the file is unreadable."""
    try:
        if path.parent.name == MASK_FOLDER:
            read_inside(path)
            return None
        return Fingerprint.of(read_rgb(path))
    except Exception as error:  # PIL's decoders raise nearly anything on a damaged file
        return reason(path, error)


def report(root: Path, problems: dict[str, list[str]]) -> None:
    """Print the problems, and raise :class:`DataError` if there are any."""
    problems = {problem: names for problem, names in problems.items() if names}
    for problem, names in problems.items():
        more = [f"... and {len(names) - MAX_LISTED:,} more"] if len(names) > MAX_LISTED else []
        print("\n  ".join([f"{problem.capitalize()}:", *names[:MAX_LISTED], *more]))
    if problems:
        counts = ", ".join(f"{len(names):,} {problem}" for problem, names in problems.items())
        raise DataError(
            f"Files and rows of {root} with problems: {counts}. Move the wrong files to another "
            "folder, then run `make data` to install the missing ones."
        )
