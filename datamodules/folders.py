"""Folders as people have them: with links, and with the files that their systems leave there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datamodules.errors import DataError

# What Windows, macOS and network drives leave in folders, besides names that start with a dot.
LEFT_BY_SYSTEMS = {
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
    """Whether a file or folder is the user's own, and not one that a system left or hides."""
    return not name.startswith(".") and name.casefold() not in LEFT_BY_SYSTEMS


def listed(folder: Path) -> list[str]:
    """The visible names in a folder; none where there is no such folder."""
    return sorted(filter(visible, os.listdir(folder))) if folder.is_dir() else []


def files_below(folder: Path) -> list[Path]:
    """The visible files in a folder and all folders in it, in order.

    Links to folders are followed. A folder that is reached twice is searched once.

    Raises:
        DataError: A folder cannot be listed.
    """
    return sorted(_walk(folder, set()))


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    try:
        names = listed(folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be searched ({error.strerror}): change its permissions, or name "
            "another folder."
        ) from error
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from _walk(path, seen)
        else:
            yield path
