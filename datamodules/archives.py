"""The files of HAM10000's release, and how to find them in archives and folders."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from datamodules.errors import DataError
from datamodules.folders import listed, visible
from datamodules.layout import IMAGE_FOLDERS, MASK_FOLDER, METADATA, released_name
from datamodules.verify import IMAGE, MASK, TEST, VAL

COPY = re.compile(r" ?\(\d+\)(?=\.\w+$|$)")  # that browsers add to the name of a second download
MAX_UNPACKED = 20 * 10**9  # bytes that an archive may unpack to; the release's need 1.5e9


@dataclass(frozen=True)
class Piece:
    """A folder or a table of the installed layout.

    Args:
        target: Name below the root, which ends with ``.csv`` for tables.
        remote: Name of the published file.
        names: Pattern of the files to install; others are skipped.
        files: Number of files in the release.
        size: Approximate size of these files, in bytes.
        ids: Numbers of the images, which identify them in folders of any name.
    """

    target: str
    remote: str
    names: str
    files: int
    size: int
    ids: range = range(0)

    @property
    def table(self) -> bool:
        return self.target.endswith(".csv")

    def folder(self, root: Path) -> Path:
        return root if self.table else root / self.target

    def among(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if re.fullmatch(self.names, released_name(name))]

    def installed(self, root: Path) -> int:
        """The number of files that are installed."""
        return len(self.among(listed(self.folder(root))))


def _table(target: str, remote: str, size: int) -> Piece:
    return Piece(target, remote, re.escape(target), 1, size)


def _folder(name: str, names: str, size: int, ids: range) -> Piece:
    return Piece(name, f"{name}.zip", names, len(ids), size, ids)


RELEASE = (
    _table(METADATA, METADATA, 690_218),
    _folder(IMAGE_FOLDERS[0], IMAGE, 1_366_522_108, range(24306, 29306)),
    _folder(IMAGE_FOLDERS[1], IMAGE, 1_403_566_547, range(29306, 34321)),
    _folder(MASK_FOLDER, MASK, 11_000_000, range(24306, 34321)),
)
OFFICIAL_RELEASE = (
    _table(f"{VAL}_GroundTruth.csv", f"{VAL}_GroundTruth.zip", 10_000),
    Piece(f"{VAL}_Input", f"{VAL}_Input.zip", IMAGE, 193, 60_000_000),
    _table(f"{TEST}_GroundTruth.csv", f"{TEST}_GroundTruth.csv", 100_000),
    Piece(f"{TEST}_Input", f"{TEST}_Images.zip", IMAGE, 1_511, 420_000_000),
)


class Entry(NamedTuple):
    """A file to install: its size in bytes, and a function that opens it."""

    size: int
    open: Callable[[], IO[bytes]]


def below(folder: Path) -> Iterator[Path]:
    """All visible files and folders below a folder, following links, each folder once."""
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(filter(visible, folders))
        yield from (Path(parent, name) for name in sorted(filter(visible, files)) + folders)


def inside(path: Path, pieces: Iterable[Piece]) -> list[str]:
    """The members of an archive that belong to ``pieces``, or are archives of them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name.replace("\\", "/")) for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []
    known = {name.split(".")[0].lower() for p in pieces for name in (p.target, p.remote)}
    return [str(n) for n in names if {name.split(".")[0].lower() for name in n.parts} & known]


def find(piece: Piece, paths: list[Path]) -> list[Path]:
    """The archive, the table or the unpacked files of ``piece`` among ``paths``."""
    stems = {name.split(".")[0].lower() for name in (piece.target, piece.remote)}
    for ending in (".zip", ".csv", ".tab", "") if piece.table else (".zip", ""):
        names = {stem + ending for stem in stems}
        for path in (path for path in paths if COPY.sub("", path.name.lower()) in names):
            if path.is_dir():
                files = _matching(piece, below(path))
                files = _with_ids(piece, files) or files
            else:
                files = [path] if path.suffix or piece.table else []
            if files:
                return files
    return _with_ids(piece, _matching(piece, paths))


def _matching(piece: Piece, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if piece.among([path.name])]


def _with_ids(piece: Piece, files: list[Path]) -> list[Path]:
    # If both image archives were unpacked into one folder, the numbers tell them apart.
    return [file for file in files if piece.ids and int(file.name[5:12]) in piece.ids]


@contextmanager
def entries(piece: Piece, files: list[Path]) -> Iterator[dict[str, Entry]]:
    """Open ``files``, an archive or unpacked files, as the entries of ``piece`` by final name."""
    if len(files) == 1 and files[0].suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(files[0]) as archive:
                yield _members(piece, archive)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(
                f"{files[0]} is damaged or incomplete ({error}): download it again."
            ) from error
    else:
        table = piece.target if piece.table else ""
        yield {
            table or released_name(f.name): Entry(f.stat().st_size, partial(io.FileIO, f))
            for f in files
        }


def _members(piece: Piece, archive: zipfile.ZipFile) -> dict[str, Entry]:
    members = archive.infolist()
    for member in members:
        _refuse_escape(archive, member)
    if sum(member.file_size for member in members) > MAX_UNPACKED:
        raise DataError(
            f"{archive.filename} would unpack to more than {MAX_UNPACKED / 1e9:.0f} GB, unlike any "
            "archive of HAM10000: download it again."
        )
    # By base name, because some archives have a folder inside and some do not.
    paths = {_path(member): member for member in members if not member.is_dir()}
    named = {path.name: paths[path] for path in paths if all(map(visible, path.parts))}
    chosen = {released_name(name): named[name] for name in piece.among(named)}
    if not chosen:
        raise DataError(
            f"{archive.filename} contains no file of {piece.target}: download it again."
        )
    return {name: Entry(m.file_size, partial(archive.open, m)) for name, m in chosen.items()}


def _path(member: zipfile.ZipInfo) -> PurePosixPath:
    # Windows PowerShell writes backslashes, which the format forbids.
    return PurePosixPath(member.orig_filename.replace("\\", "/"))


def _refuse_escape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # `filename` is already cleaned
    link = stat.S_ISLNK(member.external_attr >> 16)
    # A Windows path has the separators of both systems.
    outside = ".." in PureWindowsPath(name).parts or PureWindowsPath(name).anchor
    if link or outside or "\0" in name or member.flag_bits & 1:
        raise DataError(
            f"{archive.filename} has the member {name!r}, which is a link, encrypted, or outside "
            "the target folder. Nothing was unpacked; do not trust this archive."
        )
