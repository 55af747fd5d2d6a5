"""Listings of folders without the files that operating systems leave in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datamodules.errors import DataError

# Files of Windows, macOS and network drives, besides names that start with a dot.
SYSTEM_FILES = {
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "system volume information",
    "thumbs.db",
}


def visible(name: str) -> bool:
    """Whether a file or folder is the user's own: neither hidden nor left by a system."""
    return not name.startswith(".") and name.casefold() not in SYSTEM_FILES


def listed(folder: Path) -> list[str]:
    """The visible names in a folder, sorted; empty if the folder does not exist."""
    return sorted(filter(visible, os.listdir(folder))) if folder.is_dir() else []


def relative_files(folder: Path) -> list[str]:
    """The visible files in a folder and its subfolders: their paths in it, with slashes, sorted.

    Links to folders are followed. A folder that is reached twice is searched once.

    Raises:
        DataError: A folder cannot be listed.
    """
    return sorted(name for name, _ in scan(folder, set()))


def files_below(folder: Path) -> list[Path]:
    """The visible files in a folder and its subfolders, sorted; see :func:`relative_files`."""
    return sorted(folder / name for name in relative_files(folder))


def temporary_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A hidden folder in a folder, from which files can be moved there.

    Raises:
        DataError: The folder cannot be written to.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=".adopt-", dir=folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror}): set --out to another folder."
        ) from error


def scan(folder: Path, seen: set[str], prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files of :func:`relative_files` with their entries, not sorted.

    Args:
        folder: Folder to search.
        seen: Real paths of folders that are not searched; those that are searched are added.
        prefix: Beginning of all paths.
    """
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in filter(lambda entry: visible(entry.name), entries):
                if entry.is_dir():
                    folders.append(entry.name)
                else:
                    yield prefix + entry.name, entry
    except OSError as error:
        raise DataError(
            f"{folder} cannot be searched ({error.strerror}): change its permissions, or choose "
            "another folder."
        ) from error
    for name in sorted(folders):
        yield from scan(folder / name, seen, f"{prefix}{name}/")
