"""Names what is missing, broken or unexpected in an installed release."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from rich.progress import track

from datamodules.dataset import (
    CLASSES,
    IMAGE_FOLDERS,
    MASK_FOLDER,
    METADATA,
    NO_LESION,
    OFFICIAL,
    DataError,
)

VAL, TEST = OFFICIAL["val"], OFFICIAL["test"]
IMAGE, MASK = r"ISIC_\d{7}\.jpg", r"ISIC_\d{7}_segmentation\.png"

RELEASED = (10_015, 7_470)  # images and lesions
SHOWN = 20  # names listed of each problem


def verify(root: Path = Path("data/ham10000")) -> None:
    """Decodes every image and mask, and names the files that are missing, broken or unexpected.

    Args:
        root: Where HAM10000 is installed.
    """
    problems = differences(root)
    problems["unreadable"] = _unreadable(root)
    report(root, problems)
    rows = _read(root / METADATA)
    lesions = len({row.get("lesion_id") for row in rows})
    counts = {f"masks in {MASK_FOLDER}": len(listed(root / MASK_FOLDER))}
    counts |= {
        f"images in {part}_Input": len(listed(root / f"{part}_Input")) for part in (VAL, TEST)
    }
    others = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    print(f"{root}: {len(rows):,} images of {lesions:,} lesions{others}; all can be read.")
    if (len(rows), lesions) != RELEASED:
        print("Note: the release has {:,} images of {:,} lesions.".format(*RELEASED))


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
    found = Counter(name for folder in folders for name in listed(root / folder))
    optional = {NO_LESION + ending}
    problems["missing"] += sorted(expected - set(found) - optional)
    problems["in two folders"] += sorted(name for name in found if found[name] > 1)
    problems["unexpected"] += [
        f"{folder}/{name}"
        for folder in folders
        for name in sorted(set(listed(root / folder)) - expected - optional)
    ]


def _ids(problems: dict[str, list[str]], table: Path) -> set[str]:
    rows = _read(table)
    counts = Counter(row["image_id"] for row in rows)
    problems["in more than one row"] += sorted(name for name in counts if counts[name] > 1)
    problems["of an unknown class"] += [
        f"{row['image_id']} ({row['dx']})" for row in rows if row["dx"] not in CLASSES
    ]
    return set(counts)


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; those of one-hot columns get ``image_id`` and ``dx`` as well."""
    if not path.exists():
        raise DataError(f"{path} is missing: `install` puts it there.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if "image" in row:
            hot = [name for name in CLASSES if row.get(name.upper()) in {"1", "1.0"}]
            row |= {"image_id": row["image"], "dx": hot[0] if len(hot) == 1 else "none"}
        if None in row.values() or not {"image_id", "dx"} <= set(row):
            raise DataError(f"{path} has a damaged row, {row}: install it again.")
    return rows


def _unreadable(root: Path) -> list[str]:
    folders = (*IMAGE_FOLDERS, MASK_FOLDER, f"{VAL}_Input", f"{TEST}_Input")
    files = [
        root / folder / name
        for folder in folders
        for name in sorted(listed(root / folder))
        if re.fullmatch(f"{IMAGE}|{MASK}", name)
    ]
    with ThreadPoolExecutor() as pool:
        broken = track(pool.map(_broken, files), "Decoding", total=len(files))
        return [f"{f.parent.name}/{f.name}" for f, bad in zip(files, broken, strict=True) if bad]


def _broken(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # PIL's decoders raise nearly anything on a damaged file
        return True
    return False


def report(root: Path, problems: dict[str, list[str]]) -> None:
    problems = {problem: names for problem, names in problems.items() if names}
    for problem, names in problems.items():
        more = [f"... and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
        print("\n  ".join([f"{problem.capitalize()}:", *names[:SHOWN], *more]))
    if problems:
        counts = ", ".join(f"{len(names):,} {problem}" for problem, names in problems.items())
        raise DataError(
            f"Of the files and rows of {root}, {counts}: remove what is there and wrong, and "
            "install again from a whole release, which puts back what is missing."
        )


def listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
