"""Installs HAM10000, from its publishers or from archives that you have."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from datamodules.dataset import IMAGE_FOLDERS, MASK_FOLDER, METADATA, DataError
from datamodules.download import REMOTES, byte_bar, fetch
from datamodules.verify import IMAGE, MASK, TEST, VAL, differences, listed, report

LICENCE = """\
HAM10000 is published under CC BY-NC 4.0, for research and not for commercial use. Attribute it to
P. Tschandl, C. Rosendahl and H. Kittler: The HAM10000 dataset, a large collection of multi-source
dermatoscopic images of common pigmented skin lesions. Sci. Data 5, 180161 (2018)."""
DOWNLOADS = "downloads"  # below the root, while an install runs
LARGEST = 20 * 10**9  # bytes that an archive may unpack to; the release's stay below 1.5e9


@dataclass(frozen=True)
class Piece:
    """A folder or a table of the installed layout.

    Args:
        target: Its name below the root; a table's ends with ``.csv``.
        remote: The name of what is published.
        names: Pattern of the files that are taken; all others are skipped.
        files: How many the release has.
        size: Their bytes, about.
        ids: The numbers of its images, by which they are found in folders of any name.
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
        return [name for name in names if re.fullmatch(self.names, name)]

    def installed(self, root: Path) -> int:
        """How many of its files there are."""
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
    """A file to install: its bytes, and how to open it."""

    size: int
    open: Callable[[], IO[bytes]]


def install(
    root: Path = Path("data/ham10000"), src: Path | None = None, official: bool = False
) -> None:
    """Installs HAM10000: images, metadata and lesion masks. It may be interrupted and run again.

    Args:
        root: Where to. It takes 4.2 GB while it runs and 2.8 GB afterwards.
        src: A folder with the archives of the release, or with what they unpack to, for machines
            without internet. It is searched with all folders below, and never changed. Without
            it, the release is downloaded.
        official: Also the validation and test sets of the ISIC 2018 challenge, Task 3.
    """
    print(LICENCE)
    pieces = RELEASE + (OFFICIAL_RELEASE if official else ())
    if src is None:
        _from_publishers(root, pieces)
    else:
        _from_folder(root, src, pieces)
    with suppress(OSError):  # it stays if a part of a download is in it
        (root / DOWNLOADS).rmdir()
    report(root, differences(root))
    print(f"HAM10000 is in {root}. To decode every image once, run `verify`.")


def _from_publishers(root: Path, pieces: Iterable[Piece]) -> None:
    todo = [piece for piece in pieces if piece.installed(root) < piece.files]
    sizes = [piece.size for piece in todo]
    # Each archive goes when it is unpacked, so the largest is the most that is there twice.
    _check_space(root, sum(sizes) + max(sizes, default=0))
    for piece in todo:
        archive = fetch(REMOTES[piece.remote], root / DOWNLOADS)
        try:
            _unpack(piece, [archive], root)
        except DataError:
            archive.unlink()  # the next try fetches another one
            raise
        archive.unlink()


def _from_folder(root: Path, src: Path, pieces: Iterable[Piece]) -> None:
    if not src.is_dir():
        raise DataError(f"{src} is not a folder: name the one that holds the archives.")
    below = list(_below(src))
    found = {piece: _find(piece, below) for piece in pieces}
    lacking = [piece.target for piece in pieces if not found[piece] and not piece.installed(root)]
    if lacking == [MASK_FOLDER]:  # some copies of HAM10000 come without, and few methods need them
        print(f"Note: nothing in or below {src} is or unpacks to {MASK_FOLDER}.")
    elif lacking:
        raise DataError(
            f"Nothing in or below {src} is or unpacks to {', '.join(lacking)}: put it there."
        )
    todo = {}
    for piece in found:
        with _entries(piece, found[piece]) as entries:  # all are opened before any is unpacked
            if piece.installed(root) < len(entries):
                todo[piece] = sum(entry.size for entry in entries.values())
    _check_space(root, sum(todo.values()))
    for piece in todo:
        _unpack(piece, found[piece], root)


def _check_space(root: Path, needed: int) -> None:
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{root} needs {needed / 1e9:.2f} GB for what is still to be installed, but its disk "
            f"has {free / 1e9:.2f} GB free: make room or choose another root."
        )


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - {"__MACOSX"})
        yield from (Path(parent, name) for name in sorted(files) + folders)


def _find(piece: Piece, below: list[Path]) -> list[Path]:
    """The archive, the table or the unpacked files of ``piece`` among ``below``."""
    stems = {name.split(".")[0].lower() for name in (piece.target, piece.remote)}
    for ending in (".zip", ".csv", ".tab", "") if piece.table else (".zip", ""):
        names = {stem + ending for stem in stems}
        for path in (path for path in below if path.name.lower() in names):
            if path.is_dir():
                files = _matching(piece, _below(path))
                files = _own(piece, files) or files
            else:
                files = [path] if path.suffix or piece.table else []
            if files:
                return files
    return _own(piece, _matching(piece, below))


def _matching(piece: Piece, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if piece.among([path.name])]


def _own(piece: Piece, files: list[Path]) -> list[Path]:
    # Where both parts were unpacked into one folder, the numbers tell them apart.
    return [file for file in files if piece.ids and int(file.name[5:12]) in piece.ids]


@contextmanager
def _entries(piece: Piece, files: list[Path]) -> Iterator[dict[str, Entry]]:
    """What ``piece`` takes from ``files``, by the name that it gets."""
    if len(files) == 1 and files[0].suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(files[0]) as archive:
                yield _members(piece, archive)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(
                f"{files[0]} is damaged or incomplete ({error}): get it once more."
            ) from error
    else:
        table = piece.target if piece.table else ""
        yield {table or f.name: Entry(f.stat().st_size, partial(io.FileIO, f)) for f in files}


def _members(piece: Piece, archive: zipfile.ZipFile) -> dict[str, Entry]:
    members = archive.infolist()
    for member in members:
        _refuse_escape(archive, member)
    if sum(member.file_size for member in members) > LARGEST:
        raise DataError(
            f"{archive.filename} would unpack to more than {LARGEST / 1e9:.0f} GB, which is no "
            "archive of HAM10000: get it once more."
        )
    # By base name, since some archives have a folder inside and some do not.
    paths = {PurePosixPath(member.filename): member for member in members if not member.is_dir()}
    named = {path.name: paths[path] for path in paths if "__MACOSX" not in path.parts}
    taken = {name: named[name] for name in piece.among(named)}
    if not taken:
        raise DataError(f"{archive.filename} holds nothing of {piece.target}: get it once more.")
    return {name: Entry(m.file_size, partial(archive.open, m)) for name, m in taken.items()}


def _refuse_escape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # `filename` is already cleaned
    link = stat.S_ISLNK(member.external_attr >> 16)
    outside = ".." in PurePosixPath(name).parts or PureWindowsPath(name).anchor
    if link or outside or "\\" in name or "\0" in name or member.flag_bits & 1:
        raise DataError(
            f"{archive.filename} has the member {name!r}, which is a link, encrypted, or leads "
            "out of the folder; nothing was unpacked, and the archive should not be trusted."
        )


def _unpack(piece: Piece, files: list[Path], root: Path) -> None:
    aside = root / DOWNLOADS / f"{piece.target}.unpacked"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with _entries(piece, files) as entries, byte_bar() as bar:
            task = bar.add_task(piece.target, total=sum(e.size for e in entries.values()))
            for name, entry in entries.items():
                with entry.open() as source, (aside / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                bar.advance(task, entry.size)
        if piece.table:
            _as_csv(aside / piece.target, files[0])
        _move(aside, piece.folder(root))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move(aside: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(aside, folder)
        return
    for file in aside.iterdir():  # completes or repairs what is there
        os.replace(file, folder / file.name)


def _as_csv(path: Path, origin: Path) -> None:
    """The Dataverse's tab-separated export as the comma-separated original."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    if "image" not in header:
        raise DataError(f"{origin} is no table of images: get it once more.")
    if "\t" in header:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.reader(io.StringIO(text), delimiter="\t")
            csv.writer(file, lineterminator="\n").writerows(rows)
