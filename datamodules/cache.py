"""Pixels decoded once per machine, into memory maps of uint8 at the training size."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from datamodules.dataset import SHOWN, DataError, image_files, mask_files
from datamodules.pixels import is_damage, read_inside, read_rgb, reason
from datamodules.progress import track
from datamodules.saliency import fine_grained_saliency

VERSION = 2  # part of every key: raise it when a reader changes
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}  # here, but another folder may do


def read_image(path: Path, size: int) -> np.ndarray:
    """An image file as (size, size, 3) uint8, resampled by area averaging.

    The whole image is kept and its aspect ratio is not: a lesion is often as wide as the image,
    and a crop would lose its border.

    Raises:
        OSError: The file is missing, truncated or no image.
        ValueError: Its pixels are not those of an 8-bit picture, and cannot be converted to them.
    """
    return _resize(read_rgb(path), size)


def read_mask(path: Path, size: int) -> np.ndarray:
    """A mask file as (size, size) uint8: the share of each pixel inside the lesion, times 255."""
    return _resize(read_inside(path), size)


def read_saliency(path: Path, size: int) -> np.ndarray:
    """The saliency of an image file as (size, size) uint8, computed before resampling."""
    pixels = torch.from_numpy(read_rgb(path)).permute(2, 0, 1)
    return _resize(fine_grained_saliency(pixels[None])[0, 0].numpy(), size)


READERS = {"image": read_image, "mask": read_mask, "saliency": read_saliency}


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def release_arrays(
    root: Path,
    table: pd.DataFrame,
    source: str,
    size: int,
    maps: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> dict[str, np.ndarray]:
    """The cached images of a source, and its ``mask`` and ``saliency`` where asked for.

    Args:
        root: Where the release is installed.
        table: The release, as of :func:`~datamodules.dataset.read_table`.
        source: ``ham10000``, ``val`` or ``test``; the last two have no masks.
        size: Height and width of the arrays.
        maps: Of ``mask`` and ``saliency``.
        cache_dir: Folder of the cache. If not given, ``root/cache``, or :func:`user_cache` where
            that cannot be written.

    Raises:
        DataError: Files are missing or unreadable, ``size`` is not positive, or the cache cannot
            be written.
    """
    if size < 1:
        raise DataError(f"data.size={size} is no size of an image: give at least 1 pixel.")
    ids = table.loc[table["source"] == source, "image_id"]
    names = ["image", *(m for m in maps if m != "mask" or source == "ham10000")]
    folder = cache_dir.expanduser() if cache_dir else root / "cache"
    other = None if cache_dir else user_cache()
    return {n: cached(folder, n, _files(root, n, ids), size, other) for n in names}


def user_cache() -> Path:
    """The user's folder for decoded pixels of data that lie where only others may write."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "longderm"


def _files(root: Path, name: str, ids: pd.Series[str]) -> list[Path]:
    found = mask_files(root) if name == "mask" else image_files(root)
    missing = sorted(set(ids) - found.keys())
    if missing:
        raise DataError(
            f"{len(missing)} {name} files are not in {root}, {missing[0]} the first: `make data` "
            "completes the data, `python -m datamodules verify` names every file."
        )
    return [found[image_id] for image_id in ids]


def cached(
    folder: Path, name: str, files: Sequence[Path], size: int, other: Path | None = None
) -> np.ndarray:
    """What ``READERS[name]`` makes of ``files``, as a read-only memory map of N rows.

    Built with all cores where it does not exist yet, written aside and renamed when whole. The
    first process builds, others wait for it. Its name holds a digest of the names, sizes and
    times of the files: other files are another map.

    Args:
        folder: Folder of the map.
        name: Name of the reader.
        files: Files, one for each row.
        size: Height and width of the rows.
        other: Folder that is used where ``folder`` lacks the map and cannot be written.

    Raises:
        DataError: Files cannot be read (all of them are found first), no folder can be written,
            or the disk is too full.
    """
    file = f"{name}-{size}-{_digest(name, files)}.npy"
    shape = _shape(name, files, size)
    if (rows := _mapped(folder / file, shape)) is not None:
        return rows
    path = _writable(folder, other) / file
    try:
        with FileLock(path.with_suffix(".lock")):
            if _mapped(path, shape) is None:
                _build(path, name, files, size)
        return np.load(path, mmap_mode="r")
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The map in a file, unless the file is missing, damaged or another array."""
    try:
        rows = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.shape == shape and rows.dtype == np.uint8 else None


def _writable(folder: Path, other: Path | None) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if other is None or error.errno not in REFUSED:
            raise _unwritable(folder, error) from error
    print(
        f"{folder} cannot be written, so pixels are cached in {_writable(other, None)}. "
        "data.cache_dir names another folder."
    )
    return other


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"The cache cannot be written to {folder} ({error.strerror or error}): name a folder that "
        "can be written with data.cache_dir."
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


def _shape(name: str, files: Sequence[Path], size: int) -> tuple[int, ...]:
    return (len(files), size, size, 3) if name == "image" else (len(files), size, size)


def _build(path: Path, name: str, files: Sequence[Path], size: int) -> None:
    shape = _shape(name, files, size)
    free, needed = shutil.disk_usage(path.parent).free, int(np.prod(shape))
    if free < needed:
        raise DataError(
            f"The {name} cache needs {needed / 1e9:.1f} GB in {path.parent}, where "
            f"{free / 1e9:.1f} GB are free: make room, choose a smaller data.size, or name another "
            "folder with data.cache_dir."
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
    failed: dict[Path, Exception] = {}

    def read(row: int) -> None:
        try:
            rows[row] = READERS[name](files[row], size)
        except Exception as error:  # PIL raises half a dozen types for damaged files
            failed[files[row]] = error

    # Threads suffice: decoding and resampling release the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(read, range(len(files)))
        for _ in track(done, f"Caching {name}s at {size} px", len(files)):
            pass
    if failed:
        raise _unreadable(name, failed, len(files))


def _unreadable(name: str, failed: Mapping[Path, Exception], total: int) -> DataError:
    reasons = sorted(f"{file} ({reason(file, error)})" for file, error in failed.items())
    if any(file.is_symlink() and not file.exists() for file in failed):
        advice = "fetch the files that the links name, or correct the links"
    elif all(map(is_damage, failed.values())):
        advice = (
            "move them elsewhere, so that `make data` installs them again, or remove their rows "
            "from the metadata"
        )
    else:
        advice = "remedy the reasons and start again; the files themselves may be whole"
    more = f"\n  and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return DataError(
        f"{len(failed)} of {total} {name} files cannot be read: {advice}.\n  "
        + "\n  ".join(reasons[:SHOWN])
        + more
    )
