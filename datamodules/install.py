"""Installs HAM10000, from its publishers or from archives that you have."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from datamodules.archives import OFFICIAL_RELEASE, RELEASE, Piece, below, entries, find, inside
from datamodules.dataset import MASK_FOLDER, METADATA, DataError
from datamodules.download import REMOTES, byte_bar, fetch
from datamodules.tables import rows
from datamodules.verify import differences, report

LICENCE = """\
HAM10000 is published under CC BY-NC 4.0, for research and not for commercial use. Attribute it to
P. Tschandl, C. Rosendahl and H. Kittler: The HAM10000 dataset, a large collection of multi-source
dermatoscopic images of common pigmented skin lesions. Sci. Data 5, 180161 (2018)."""
DOWNLOADS = "downloads"  # below the root, while an install runs


def install(
    root: Path = Path("data/ham10000"), src: Path | None = None, official: bool = False
) -> None:
    """Installs HAM10000: images, metadata and lesion masks. It may be interrupted and run again.

    Args:
        root: Where to. It takes 4.2 GB while it runs and 2.8 GB afterwards.
        src: A folder with the archives of the release, or with what they unpack to, for machines
            without internet, or one such archive. A folder is searched with all folders below,
            and never changed. Without ``src``, the release is downloaded.
        official: Also the validation and test sets of the ISIC 2018 challenge, Task 3.
    """
    root = root.expanduser()
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
    src = src.expanduser()
    if not src.exists():
        raise DataError(f"{src} does not exist: name the folder that holds the archives.")
    paths = list(below(src)) if src.is_dir() else [src]
    found = {piece: find(piece, paths) for piece in pieces}
    absent = [piece for piece in pieces if not found[piece] and not piece.installed(root)]
    lacking = [piece.target for piece in absent]
    if lacking == [MASK_FOLDER]:  # some copies of HAM10000 come without, and few methods need them
        print(f"Note: nothing in or below {src} is or unpacks to {MASK_FOLDER}.")
    elif lacking:
        advice = _advice(paths, absent)
        raise DataError(
            f"Nothing in or below {src} is or unpacks to {', '.join(lacking)}: {advice}"
        )
    todo = {}
    for piece in found:
        with entries(piece, found[piece]) as there:  # all are opened before any is unpacked
            if piece.installed(root) < len(there):
                todo[piece] = sum(entry.size for entry in there.values())
    _check_space(root, sum(todo.values()))
    for piece in todo:
        _unpack(piece, found[piece], root)


def _advice(paths: Iterable[Path], absent: Iterable[Piece]) -> str:
    """What to do about pieces that are not among ``paths``."""
    for path in paths:
        if path.suffix.lower() == ".zip" and (members := inside(path, absent)):
            return f"{path} holds {members[0]}, so unpack it and name the folder as SRC."
    if any(re.match(r"ISIC2018_Task3_Training_", path.name) for path in paths):
        return (
            "put it there. The files of the ISIC challenge's training set lack the metadata: get "
            f"{METADATA} from {REMOTES[METADATA].url}."
        )
    return "put it there."


def _check_space(root: Path, needed: int) -> None:
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{root} needs {needed / 1e9:.2f} GB for what is still to be installed, but its disk "
            f"has {free / 1e9:.2f} GB free: make room or choose another root."
        )


def _unpack(piece: Piece, files: list[Path], root: Path) -> None:
    aside = root / DOWNLOADS / f"{piece.target}.unpacked"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with entries(piece, files) as there, byte_bar() as bar:
            task = bar.add_task(piece.target, total=sum(entry.size for entry in there.values()))
            for name, entry in there.items():
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
    """A table of any encoding and separator, such as the Dataverse's tabs, as released."""
    header, *found = rows(path, origin)
    if not {"image_id", "image"} & set(header):
        raise DataError(f"{origin} is no table of images: get it once more.")
    if path.read_bytes().startswith(",".join(header).encode()):
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *found])
