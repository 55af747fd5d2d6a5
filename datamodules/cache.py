"""The cache: pixels decoded once per machine, as memory maps of uint8 at the training size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from datamodules.data_folder import DataFolder
from datamodules.errors import MAX_LISTED, DataError
from datamodules.layout import OFFICIAL
from datamodules.memory_map import memory_map
from datamodules.pixels import is_damage, read_inside, read_rgb, reason
from datamodules.progress import track
from datamodules.saliency import fine_grained_saliency

VERSION = 2  # in every key; increase it when a reader changes


def read_image(path: Path, size: int) -> np.ndarray:
    """Read an image file as (size, size, 3) uint8, resampled by area averaging.

    The image is squeezed to a square rather than cropped, because a lesion is often as wide as
    its image and a crop would lose its border.

    Raises:
        OSError: The file is missing, truncated or not an image.
        ValueError: The pixels cannot be converted to 8 bits.
    """
    return resize(read_rgb(path), size)


def read_mask(path: Path, size: int) -> np.ndarray:
    """Read a mask file as (size, size) uint8: each pixel's share of lesion, times 255."""
    return resize(read_inside(path), size)


def read_saliency(path: Path, size: int) -> np.ndarray:
    """Compute the saliency of an image file, then resample it to (size, size) uint8."""
    pixels = torch.from_numpy(read_rgb(path)).permute(2, 0, 1)
    return resize(fine_grained_saliency(pixels[None])[0, 0].numpy(), size)


READERS = {"image": read_image, "mask": read_mask, "saliency": read_saliency}
PLURALS = {"image": "images", "mask": "masks", "saliency": "saliency maps"}


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resample pixels (H, W) or (H, W, 3) to (size, size) or (size, size, 3)."""
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def cached_arrays(
    data: DataFolder,
    source: str,
    size: int,
    maps: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> dict[str, np.ndarray]:
    """The cached images of a source, with ``mask`` and ``saliency`` on request.

    Args:
        data: Folder of the data set.
        source: Source of the images, as in the data set's table; the official ISIC 2018 sets,
            ``val`` and ``test``, have no masks.
        size: Height and width of the arrays, in pixels, at least 1.
        maps: Further arrays: ``mask``, ``saliency``, or both.
        cache_dir: Folder of the cache. By default ``cache`` in the data folder, or
            :func:`user_cache` if that is not writable.

    Raises:
        DataError: Files are missing or unreadable, ``size`` is not positive, or the cache cannot
            be written.
    """
    if size < 1:
        raise DataError(f"data.size={size} is not an image size: set at least 1 pixel.")
    ids = data.table.loc[data.table["source"] == source, "image_id"]
    names = ["image", *(m for m in maps if m != "mask" or source not in OFFICIAL)]
    folder = cache_folder(data.root, cache_dir)
    fallback = None if cache_dir else user_cache()
    return {n: cached(folder, n, _files(data, n, ids), size, fallback) for n in names}


def cache_folder(root: Path, cache_dir: Path | None) -> Path:
    """The folder of the cache: ``cache_dir`` if set, else in the data folder."""
    return cache_dir.expanduser() if cache_dir else root / "cache"


def user_cache() -> Path:
    """The user's own cache folder, for data in folders that the user cannot write to."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "longderm"


def _files(data: DataFolder, name: str, ids: pd.Series[str]) -> list[Path]:
    kind = "mask" if name == "mask" else "image"
    files = data.mask_files if kind == "mask" else data.image_files
    missing = sorted(set(ids) - files.keys())
    if missing:
        raise DataError(data.describe_missing(kind, missing))
    return [files[image_id] for image_id in ids]


def cached(
    folder: Path, name: str, files: Sequence[Path], size: int, fallback: Path | None = None
) -> np.ndarray:
    """The output of ``READERS[name]`` for N ``files``, as a read-only memory map of N rows.

    A missing map is built with all cores. The file name contains a digest of the names, sizes and
    times of the files, so that changed files give another map.

    Args:
        folder: Folder of the map.
        name: Name of the reader: ``image``, ``mask`` or ``saliency``.
        files: Files, one per row.
        size: Height and width of the rows, in pixels.
        fallback: Folder to use if ``folder`` has no such map and is not writable.

    Raises:
        DataError: Some files are unreadable (the message lists all of them), no folder is
            writable, or the disk is too full.
    """
    file = f"{name}-{size}-{_digest(name, files)}.npy"
    shape = (len(files), size, size, 3) if name == "image" else (len(files), size, size)
    return memory_map(
        folder, file, shape, np.uint8, lambda rows: _fill(rows, name, files, size), fallback
    )


def _digest(name: str, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(str(VERSION).encode())
    failed: dict[Path, Exception] = {}
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            failed[file] = error
        else:
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    if failed:
        raise _unreadable(name, failed, len(files))
    return digest.hexdigest()[:12]


def _fill(rows: np.ndarray, name: str, files: Sequence[Path], size: int) -> None:
    failed: dict[Path, Exception] = {}

    def read(row: int) -> None:
        try:
            rows[row] = READERS[name](files[row], size)
        except Exception as error:  # PIL raises half a dozen types for damaged files
            failed[files[row]] = error

    # Threads suffice, because decoding and resampling release the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(read, range(len(files)))
        for _ in track(done, f"Caching {PLURALS[name]} at {size} px", len(files)):
            pass
    if failed:
        raise _unreadable(name, failed, len(files))


def _unreadable(name: str, failed: Mapping[Path, Exception], total: int) -> DataError:
    reasons = sorted(f"{file} ({reason(file, error)})" for file, error in failed.items())
    if any(file.is_symlink() and not file.exists() for file in failed):
        advice = "restore the files that the links point to, or correct the links"
    elif all(map(is_damage, failed.values())):
        advice = (
            "move them elsewhere and run `make data` to install them again, or remove their rows "
            "from the metadata"
        )
    else:
        advice = "fix the cause and start again; the files themselves may be intact"
    more = f"\n  and {len(reasons) - MAX_LISTED} more" if len(reasons) > MAX_LISTED else ""
    return DataError(
        f"{len(failed)} of {total} {name} files cannot be read: {advice}.\n  "
        + "\n  ".join(reasons[:MAX_LISTED])
        + more
    )
