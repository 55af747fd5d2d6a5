"""Check of the images and masks of a data set that a dataset.yaml describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.cache import read_mask
from datamodules.data_folder import DataFolder
from datamodules.duplicates import Fingerprint, near_duplicates
from datamodules.errors import MAX_LISTED, DataError
from datamodules.pixels import read_rgb, reason
from datamodules.progress import track


def verify_table(data: DataFolder, duplicates: Path | None = None) -> None:
    """Decode every image and mask of a data set, and list its near-duplicates.

    Args:
        data: Folder of the data set.
        duplicates: CSV file for pairs of images of different groups that show the same skin.

    Raises:
        DataError: The table cannot be used, or a file cannot be read.
    """
    table = data.table
    masked = table[data.file_names("mask", table).notna()]
    images, masks = data.locate("image", table), data.locate("mask", masked)
    prints = _decoded(images, lambda file: Fingerprint.of(read_rgb(file)), "images")
    _decoded(masks, lambda file: read_mask(file, size=8), "masks")
    print(
        f"{data.root}: {len(images):,} images of {table['lesion_id'].nunique():,} groups by "
        f"{data.group}, {len(masks):,} masks; all of them are readable."
    )
    data.report_unused(table)
    groups = table["lesion_id"].tolist()
    first, second, keypoints = np.array(near_duplicates(prints, groups), int).reshape(-1, 3).T
    pairs = {
        f"{other}{name}": table[name].to_numpy()[at]
        for name in ("image_id", "lesion_id", "dx")
        for other, at in (("", first), ("other_", second))
    }
    if duplicates is not None:
        write_pairs(pd.DataFrame(pairs | {"keypoints": keypoints}), duplicates)
    elif len(first):
        print(
            f"Note: {len(first):,} pairs of images seem to show the same skin in different groups; "
            "--duplicates FILE.csv lists them. Inspect them, and give the same lesions one group."
        )


def write_pairs(pairs: pd.DataFrame, path: Path) -> None:
    """Write pairs of near-duplicates to a CSV file."""
    partial = path.with_name(f".partial.{path.name}")
    pairs.to_csv(partial, index=False, errors="backslashreplace")
    partial.replace(path)
    print(f"{path} lists {len(pairs):,} pairs of near-duplicates.")


def _decoded(files: Sequence[str], read: Callable[[Path], Any], kind: str) -> list[Any]:
    """What a function makes of each file.

    Raises:
        DataError: Some files cannot be read; the first are named.
    """

    def one(file: str) -> tuple[Any, str]:
        try:
            return read(Path(file)), ""
        except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
            return None, f"\n  {file} ({reason(Path(file), error)})"

    with ThreadPoolExecutor() as pool:
        done = list(track(pool.map(one, files), f"Decoding {kind}", len(files)))
    if broken := [told for _, told in done if told]:
        more = f"\n  and {len(broken) - MAX_LISTED} more" if len(broken) > MAX_LISTED else ""
        raise DataError(
            f"{len(broken)} of {len(files)} {kind} cannot be read: replace these files by copies "
            f"of the originals, or remove their rows from the table.{''.join(broken[:MAX_LISTED])}"
            f"{more}"
        )
    return [made for made, _ in done]
