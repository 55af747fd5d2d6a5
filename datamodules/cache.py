"""The cache: pixels decoded once per machine, as memory maps of uint8 at the training size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch

from datamodules.boxes import box_of, whole_file
from datamodules.errors import MAX_LISTED, DataError
from datamodules.layout import OFFICIAL
from datamodules.memory_map import memory_map
from datamodules.pixels import is_damage, read_inside, read_rgb, reason
from datamodules.progress import track
from datamodules.saliency import fine_grained_saliency

if TYPE_CHECKING:
    from datamodules.data_folder import DataFolder

VERSION = 2  # in every key; increase it when a reader changes
PART = 4096  # files that a process or a pool of threads is given at once
CHUNK = 64  # files that a process reads before it reports


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
    """Read a mask file or a box as (size, size) uint8: each pixel's share of lesion, times 255."""
    box = box_of(path)
    return resize(box.inside(Path(whole_file(path))) if box else read_inside(path), size)


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
    processes: int = 1,
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
        processes: Number of processes that decode the images if they are not cached yet. 1 uses
            threads of this process, one per core.

    Raises:
        DataError: Files are missing or unreadable, ``size`` is not positive, or the cache cannot
            be written.
    """
    if size < 1:
        raise DataError(f"data.size={size} is not an image size: set at least 1 pixel.")
    if processes < 1:
        raise DataError(f"--processes={processes}: set it to 1 or more.")
    rows = rows_of(data.table, source)
    names = ["image", *(m for m in maps if m != "mask" or source not in OFFICIAL)]
    folder = cache_folder(data.root, cache_dir)
    fallback = None if cache_dir else user_cache()
    files = {name: data.locate("mask" if name == "mask" else "image", rows) for name in names}
    return {name: cached(folder, name, files[name], size, fallback, processes) for name in names}


def rows_of(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The rows of a source, without a copy if there is no other."""
    of_source = table["source"] == source
    return table if of_source.all() else table[of_source]


def cache_folder(root: Path, cache_dir: Path | None) -> Path:
    """The folder of the cache: ``cache_dir`` if set, else in the data folder."""
    return cache_dir.expanduser() if cache_dir else root / "cache"


def user_cache() -> Path:
    """The user's own cache folder, for data in folders that the user cannot write to."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "longderm"


def cached(
    folder: Path,
    name: str,
    files: Sequence[Path | str],
    size: int,
    fallback: Path | None = None,
    processes: int = 1,
) -> np.ndarray:
    """The output of ``READERS[name]`` for N ``files``, as a read-only memory map of N rows.

    A missing map is built with all cores. The file name contains a digest of the names, sizes and
    times of the files, so that changed files give another map.

    Args:
        folder: Folder of the map.
        name: Name of the reader: ``image``, ``mask`` or ``saliency``.
        files: Files, one per row; for masks also :class:`~datamodules.boxes.Box` parts of images.
        size: Height and width of the rows, in pixels.
        fallback: Folder to use if ``folder`` has no such map and is not writable.
        processes: Number of decoding processes; see :func:`cached_arrays`.

    Raises:
        DataError: Some files are unreadable (the message lists all of them), no folder is
            writable, or the disk is too full.
    """
    file = f"{name}-{size}-{digest_of(name, files)}.npy"
    shape = (len(files), size, size, 3) if name == "image" else (len(files), size, size)
    fill = partial(_fill, name=name, files=files, size=size, processes=processes)
    return memory_map(folder, file, shape, np.uint8, fill, fallback)


def digest_of(name: str, files: Iterable[Path | str]) -> str:
    """A digest of the names, sizes and times of files.

    Raises:
        DataError: Some files are missing.
    """
    digest = hashlib.sha256(str(VERSION).encode())
    failed: dict[Path, Failure] = {}
    total = 0
    for file in files:
        total += 1
        try:
            stat = os.stat(whole_file(file))
        except OSError as error:
            failed[Path(file)] = failure(Path(file), error)
        else:
            line = f"{os.path.basename(file)} {stat.st_size} {stat.st_mtime_ns}\n"
            digest.update(line.encode())
    if failed:
        raise unreadable(name, failed, total)
    return digest.hexdigest()[:12]


def _fill(
    rows: np.ndarray, name: str, files: Sequence[Path | str], size: int, processes: int = 1
) -> None:
    numbered = enumerate(map(str, files))
    # Pools hold an object for each task, so they get some thousand files at a time.
    parts = iter(lambda: list(islice(numbered, PART * processes)), [])
    title = f"Caching {PLURALS[name]} at {size} px"
    with _pool(processes) as pool:
        # Processes open the file by its name; threads share the array.
        array = str(rows.filename) if processes > 1 else rows  # type: ignore[attr-defined]
        read = partial(read_row, array, name, size)
        chunk = CHUNK if processes > 1 else 1
        done = chain.from_iterable(pool.map(read, part, chunksize=chunk) for part in parts)
        failed = dict(filter(None, track(done, title, len(files))))
    if failed:
        raise unreadable(name, failed, len(files))


def _pool(processes: int) -> Executor:
    # Decoding and resampling release the interpreter lock, so threads suffice for some cores.
    if processes == 1:
        return ThreadPoolExecutor(os.cpu_count())
    # Not forked, because this process may have threads that hold locks.
    return ProcessPoolExecutor(processes, get_context("spawn"))


def read_row(
    array: np.ndarray | str, name: str, size: int, numbered: tuple[int, str]
) -> tuple[Path, Failure] | None:
    """Read a file into its row of an array, or of the array in a file; what failed, if it did."""
    row, file = numbered
    path = Path(file)
    rows = np.load(array, mmap_mode="r+") if isinstance(array, str) else array
    try:
        rows[row] = READERS[name](path, size)
    except Exception as error:  # PIL raises half a dozen types for damaged files
        return path, failure(path, error)
    return None


class Failure(NamedTuple):
    """Why a file could not be read, and whether its content is at fault."""

    reason: str
    damage: bool


def failure(file: Path, error: Exception) -> Failure:
    return Failure(reason(file, error), is_damage(error))


def unreadable(name: str, failed: Mapping[Path, Failure], total: int) -> DataError:
    """The error about ``failed`` files among ``total``, and what to do."""
    reasons = sorted(f"{file} ({failure.reason})" for file, failure in failed.items())
    if any(file.is_symlink() and not file.exists() for file in failed):
        advice = "restore the files that the links point to, or correct the links"
    elif all(failure.damage for failure in failed.values()):
        advice = (
            "replace them by copies of the originals, or remove their rows from the table. To "
            "install those of HAM10000 again, move them elsewhere and run `make data`"
        )
    else:
        advice = "fix the cause and start again; the files themselves may be intact"
    more = f"\n  and {len(reasons) - MAX_LISTED} more" if len(reasons) > MAX_LISTED else ""
    return DataError(
        f"{len(failed)} of {total} {name} files cannot be read: {advice}.\n  "
        + "\n  ".join(reasons[:MAX_LISTED])
        + more
    )
