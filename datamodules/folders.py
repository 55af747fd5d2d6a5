"""Listings of folders without the files that operating systems leave in them."""

from __future__ import annotations

import os
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
    return sorted(_scan(folder, "", set()))


def files_below(folder: Path) -> list[Path]:
    """The visible files in a folder and its subfolders, sorted; see :func:`relative_files`."""
    return sorted(folder / name for name in relative_files(folder))


def _scan(folder: Path, prefix: str, seen: set[str]) -> Iterator[str]:
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            shown = sorted((e for e in entries if visible(e.name)), key=lambda e: e.name)
            folders = [entry.name for entry in shown if entry.is_dir()]
    except OSError as error:
        raise DataError(
            f"{folder} cannot be searched ({error.strerror}): change its permissions, or choose "
            "another folder."
        ) from error
    inner = set(folders)
    yield from (prefix + entry.name for entry in shown if entry.name not in inner)
    for name in folders:
        yield from _scan(folder / name, f"{prefix}{name}/", seen)
