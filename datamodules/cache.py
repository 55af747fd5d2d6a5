"""Pixels decoded once per machine, into memory maps of uint8 at the training size."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from rich.progress import track

from datamodules.dataset import DataError, image_files, mask_files
from datamodules.saliency import fine_grained_saliency

VERSION = 1  # part of every key: raise it when a reader changes
SHOWN = 20  # unreadable files named in an error


def read_image(path: Path, size: int) -> np.ndarray:
    """An image file as (size, size, 3) uint8, resampled by area averaging.

    The whole image is kept and its aspect ratio is not: a lesion is often as wide as the image,
    and a crop would lose its border.

    Raises:
        OSError: The file is missing, truncated or no image.
    """
    return _resize(_decode(path, "RGB"), size)


def read_mask(path: Path, size: int) -> np.ndarray:
    """A mask file as (size, size) uint8: the share of each pixel inside the lesion, times 255."""
    return _resize(_decode(path, "L"), size)


def read_saliency(path: Path, size: int) -> np.ndarray:
    """The saliency of an image file as (size, size) uint8, computed before resampling."""
    pixels = torch.from_numpy(_decode(path, "RGB")).permute(2, 0, 1)
    return _resize(fine_grained_saliency(pixels[None])[0, 0].numpy(), size)


READERS = {"image": read_image, "mask": read_mask, "saliency": read_saliency}


def _decode(path: Path, mode: str) -> np.ndarray:
    # PIL, not OpenCV: OpenCV fills what a truncated file lacks with gray and says nothing.
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert(mode))


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def release_arrays(
    root: Path, table: pd.DataFrame, source: str, size: int, maps: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The cached images of a source, and its ``mask`` and ``saliency`` where asked for.

    Args:
        root: Where the release is installed; the cache is kept in ``root/cache``.
        table: The release, as of :func:`~datamodules.dataset.read_table`.
        source: ``ham10000``, ``val`` or ``test``; the last two have no masks.
        size: Height and width of the arrays.
        maps: Of ``mask`` and ``saliency``.

    Raises:
        DataError: Files are missing or unreadable.
    """
    ids = table.loc[table["source"] == source, "image_id"]
    names = ["image", *(m for m in maps if m != "mask" or source == "ham10000")]
    return {n: cached(root / "cache", n, _files(root, n, ids), size) for n in names}


def _files(root: Path, name: str, ids: pd.Series[str]) -> list[Path]:
    found = mask_files(root) if name == "mask" else image_files(root)
    missing = sorted(set(ids) - found.keys())
    if missing:
        raise DataError(
            f"{len(missing)} {name} files are not in {root}, {missing[0]} the first: `make data` "
            "completes the data, `python -m datamodules verify` names every file."
        )
    return [found[image_id] for image_id in ids]


def cached(folder: Path, name: str, files: Sequence[Path], size: int) -> np.ndarray:
    """What ``READERS[name]`` makes of ``files``, as a read-only memory map of N rows.

    Built with all cores where it does not exist yet, written aside and renamed when whole. The
    first process builds, others wait for it. Its name holds a digest of the names, sizes and
    times of the files: other files are another map.

    Raises:
        DataError: Files cannot be read (all of them are found first), or the disk is too full.
    """
    path = folder / f"{name}-{size}-{_digest(files)}.npy"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    _build(path, name, files, size)
        except OSError as error:
            raise DataError(f"The cache cannot be written to {folder}: {error}.") from error
    return np.load(path, mmap_mode="r")


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(str(VERSION).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _build(path: Path, name: str, files: Sequence[Path], size: int) -> None:
    shape = (len(files), size, size, 3) if name == "image" else (len(files), size, size)
    free, needed = shutil.disk_usage(path.parent).free, int(np.prod(shape))
    if free < needed:
        raise DataError(
            f"The {name} cache needs {needed / 1e9:.1f} GB in {path.parent}, where "
            f"{free / 1e9:.1f} GB are free: make room, or choose a smaller data.size."
        )
    aside = path.with_suffix(".partial")
    try:
        rows = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # or a full quota kills the process in mid-write
            with aside.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
        _fill(rows, name, files, size)
        rows.flush()
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _fill(rows: np.ndarray, name: str, files: Sequence[Path], size: int) -> None:
    unreadable: list[str] = []

    def read(row: int) -> None:
        try:
            rows[row] = READERS[name](files[row], size)
        except Exception as error:  # PIL raises half a dozen types for damaged files
            unreadable.append(f"{files[row]} ({error})")

    # Threads suffice: decoding and resampling release the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(read, range(len(files)))
        for _ in track(done, f"Caching {name}s at {size} px", total=len(files), transient=True):
            pass
    if unreadable:
        more = f"\n  and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        raise DataError(
            f"{len(unreadable)} of {len(files)} {name} files cannot be read; delete them and run "
            "`make data` again, or remove their rows from the metadata:\n  "
            + "\n  ".join(sorted(unreadable)[:SHOWN])
            + more
        )
