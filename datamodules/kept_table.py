"""A table that is read and checked once and kept in an Arrow file, which all processes map."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
from filelock import FileLock

from datamodules.memory import return_freed_memory

MARGIN = 2 * 10**9  # nanoseconds; the coarsest clock of a file system in use, that of FAT
STAMPS = b"stamps"  # the key in the file's metadata


def kept_table(
    folders: Sequence[Path],
    file: str,
    make: Callable[[], pd.DataFrame],
    made_from: Callable[[], Iterable[str]],
) -> tuple[pd.DataFrame, str | None]:
    """The table in a file, memory-mapped; made first if missing, or if its origins changed.

    The first process makes the table while others wait. It is not kept if no folder is writable,
    or if its origins changed so recently that another change might not show in their times.

    Args:
        folders: Folders that may hold the file; it is written to the first writable one.
        file: Name of the file, which should change with the options that the table is made with.
        make: Function that makes the table.
        made_from: Function that returns the files and folders the table was made from; called
            after ``make``. A change of their times or sizes makes the table again.

    Returns:
        The table, and a text that differs between tables of different origins; None if the table
        was not kept.
    """
    paths = [folder / file for folder in folders]
    for path in paths:
        if mapped := _mapped(path):
            return mapped
    for path in paths:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                return _mapped(path) or _made(path, make, made_from)
    return make(), None


def _made(
    path: Path, make: Callable[[], pd.DataFrame], made_from: Callable[[], Iterable[str]]
) -> tuple[pd.DataFrame, str | None]:
    partial = path.with_suffix(".partial")
    partial.touch()
    try:
        start = partial.stat().st_mtime_ns  # by the clock of the file system, which may be remote
        table = make()
        stamps = _stamps(made_from())
        if any(changed > start - MARGIN for changed, _ in stamps.values()):
            return table, None
        try:
            write_arrow(partial, table, {STAMPS: json.dumps(stamps).encode()})
        except (OSError, pa.ArrowException):  # no space, or a column of objects
            return table, None
        os.replace(partial, path)
        mapped = _mapped(path)
        if mapped is None:
            return table, None
        del table
        return_freed_memory()
        return mapped
    finally:
        partial.unlink(missing_ok=True)


def _stamps(paths: Iterable[str]) -> dict[str, list[int]]:
    """Time and size of files, and the time of folders, whose size says nothing."""
    stats = {path: os.stat(path) for path in paths}
    return {
        path: [stat.st_mtime_ns, 0 if os.path.isdir(path) else stat.st_size]
        for path, stat in stats.items()
    }


def _mapped(path: Path) -> tuple[pd.DataFrame, str] | None:
    try:
        table, metadata = map_arrow(path)
        stamps = json.loads(metadata[STAMPS])
        current = _stamps(stamps)
    except Exception:  # of any kind, where the file is damaged
        return None
    key = hashlib.sha256(metadata[STAMPS]).hexdigest()
    return (table, f"{path.name} {key}") if current == stamps else None


def write_arrow(path: Path, table: pd.DataFrame, metadata: Mapping[bytes, bytes]) -> None:
    """Write a table to an Arrow file, with further metadata.

    Raises:
        OSError: The file cannot be written.
        pyarrow.ArrowException: A column has no type of Arrow.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False).combine_chunks()
    arrow = arrow.replace_schema_metadata((arrow.schema.metadata or {}) | dict(metadata))
    with pa.ipc.new_file(str(path), arrow.schema) as writer:
        writer.write_table(arrow)


def map_arrow(path: Path) -> tuple[pd.DataFrame, Mapping[bytes, bytes]]:
    """The table in an Arrow file, whose pages all processes share, and the file's metadata.

    Raises:
        OSError: The file is missing.
        ValueError: It is not an Arrow file.
    """
    arrow = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return arrow.to_pandas(split_blocks=True), arrow.schema.metadata or {}
