"""The run folders that are compared."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob
from pathlib import Path


def run_folders(pattern: str) -> list[Path]:
    """The run folders that a glob pattern names, or that are in the folders it names."""
    hits = map(Path, sorted(glob(pattern)))
    folders = [
        folder for hit in hits for folder in ([hit] if hit.name.startswith("seed") else _in(hit))
    ]
    return [path for path in folders if path.is_dir()]


def distinct(folders: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Each folder once, and a sentence for each link to one of the others."""
    kept: dict[Path, Path] = {}
    links = []
    for folder in sorted(dict.fromkeys(folders), key=_is_link):
        first = kept.setdefault(folder.resolve(), folder)
        if first.absolute() != folder.absolute():
            links.append(f"{folder} is a link to {first}.")
    return list(kept.values()), links


def _is_link(folder: Path) -> bool:
    return folder.resolve() != folder.absolute()


def _in(folder: Path) -> list[Path]:
    """Run folders in ``runs/<name>`` or in ``runs``."""
    return sorted(folder.glob("seed*")) or sorted(folder.glob("*/seed*"))
