"""Arrays that are computed once per machine and kept in files, as memory maps."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike

from datamodules.errors import DataError

NOT_PERMITTED = {errno.EACCES, errno.EPERM, errno.EROFS}  # another folder may be writable
Array = np.ndarray[Any, Any]


def memory_map(
    folder: Path,
    file: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    fill: Callable[[Array], None],
    fallback: Path | None = None,
) -> Array:
    """The array in a file, as a read-only memory map; computed first if the file is missing.

    It is computed under a temporary name until it is complete. The first process computes it while
    others wait.

    Args:
        folder: Folder of the file.
        file: Name of the file, which should change with whatever the array is made from.
        shape: Shape of the array.
        dtype: Type of its elements.
        fill: Function that computes the elements of an array in place.
        fallback: Folder to use if ``folder`` has no such file and is not writable.

    Raises:
        DataError: No folder is writable, or the disk is too full.
    """
    if (rows := _mapped(folder / file, shape, dtype)) is not None:
        return rows
    path = _writable(folder, fallback) / file
    try:
        with FileLock(path.with_suffix(".lock")):
            if _mapped(path, shape, dtype) is None:
                _compute(path, shape, dtype, fill)
        return np.load(path, mmap_mode="r")
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _mapped(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Array | None:
    """The map in a file, or None if the file is missing, damaged or holds another array."""
    try:
        rows = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.shape == shape and rows.dtype == dtype else None


def _writable(folder: Path, fallback: Path | None) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if fallback is None or error.errno not in NOT_PERMITTED:
            raise _unwritable(folder, error) from error
    print(
        f"{folder} is not writable, so the cache is kept in {_writable(fallback, None)}. "
        "Set data.cache_dir to use another folder."
    )
    return fallback


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"The cache cannot be written to {folder} ({error.strerror or error}): set data.cache_dir "
        "to a writable folder."
    )


def _compute(
    path: Path, shape: tuple[int, ...], dtype: DTypeLike, fill: Callable[[Array], None]
) -> None:
    free = shutil.disk_usage(path.parent).free
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if free < needed:
        raise DataError(
            f"{path.name} needs {needed / 1e9:.1f} GB in {path.parent}, where {free / 1e9:.1f} GB "
            "are free: free some space, lower data.size, or set data.cache_dir to a folder on "
            "another disk."
        )
    partial = path.with_suffix(".partial")
    try:
        rows = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # else a full quota kills the process while it writes
            with partial.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        fill(rows)
        rows.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
