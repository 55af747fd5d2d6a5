"""Installation of HAM10000, from its publishers or from archives on disk."""

from __future__ import annotations

import csv
import os
import re
import shutil
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from datamodules.archives import OFFICIAL_RELEASE, RELEASE, Piece, below, entries, find, inside
from datamodules.download import REMOTES, byte_bar, fetch
from datamodules.errors import DataError
from datamodules.layout import MASK_FOLDER, METADATA
from datamodules.tables import rows
from datamodules.verify import differences, report

LICENSE = """\
HAM10000 is published under CC BY-NC 4.0, for research and not for commercial use. Attribute it to
P. Tschandl, C. Rosendahl and H. Kittler: The HAM10000 dataset, a large collection of multi-source
dermatoscopic images of common pigmented skin lesions. Sci. Data 5, 180161 (2018)."""
DOWNLOADS = "downloads"  # below the root, during an installation


def install(
    root: Path = Path("data/ham10000"), src: Path | None = None, official: bool = False
) -> None:
    """Install HAM10000: images, metadata and lesion masks. Run it again after an interruption.

    Args:
        root: Target folder. It needs 4.2 GB during the installation and 2.8 GB afterwards.
        src: Folder with the archives of the release or their unpacked files, or a single archive,
            for offline machines. The folder is searched with its subfolders and never changed. By
            default the release is downloaded.
        official: Whether to install the validation and test sets of the ISIC 2018 challenge,
            Task 3, as well.
    """
    root = root.expanduser()
    print(LICENSE)
    pieces = RELEASE + (OFFICIAL_RELEASE if official else ())
    if src is None:
        _from_publishers(root, pieces)
    else:
        _from_folder(root, src, pieces)
    with suppress(OSError):  # it stays if it contains an incomplete download
        (root / DOWNLOADS).rmdir()
    report(root, differences(root))
    print(f"HAM10000 is installed in {root}. To check every image, run `make verify`.")


def _from_publishers(root: Path, pieces: Iterable[Piece]) -> None:
    todo = [piece for piece in pieces if piece.installed(root) < piece.files]
    sizes = [piece.size for piece in todo]
    # Each archive is removed once unpacked, so at most the largest one exists twice.
    _check_space(root, sum(sizes) + max(sizes, default=0))
    for piece in todo:
        archive = fetch(REMOTES[piece.remote], root / DOWNLOADS)
        try:
            _unpack(piece, [archive], root)
        except DataError:
            archive.unlink()  # the next attempt downloads it again
            raise
        archive.unlink()


def _from_folder(root: Path, src: Path, pieces: Iterable[Piece]) -> None:
    src = src.expanduser()
    if not src.exists():
        raise DataError(f"{src} does not exist: set SRC to the folder with the archives.")
    paths = list(below(src)) if src.is_dir() else [src]
    sources = {piece: find(piece, paths) for piece in pieces}
    absent = [piece for piece in pieces if not sources[piece] and not piece.installed(root)]
    # Some copies of HAM10000 lack the masks, and few methods need them.
    if names := [piece.target for piece in absent if piece.target != MASK_FOLDER]:
        raise DataError(
            f"{src} and its subfolders contain neither {', '.join(names)} nor the archives: "
            f"{_advice(paths, absent)}"
        )
    if absent:
        print(f"Note: {src} and its subfolders contain neither {MASK_FOLDER} nor its archive.")
    todo = {}
    for piece in sources:
        with entries(piece, sources[piece]) as contents:  # all are opened before any is unpacked
            if piece.installed(root) < len(contents):
                todo[piece] = sum(entry.size for entry in contents.values())
    _check_space(root, sum(todo.values()))
    for piece in todo:
        _unpack(piece, sources[piece], root)


def _advice(paths: Iterable[Path], absent: Iterable[Piece]) -> str:
    """The advice about pieces that are not among ``paths``."""
    for path in paths:
        if path.suffix.lower() == ".zip" and (members := inside(path, absent)):
            return f"unpack {path}, which contains {members[0]}, and set SRC to its folder."
    if any(re.match(r"ISIC2018_Task3_Training_", path.name) for path in paths):
        return (
            "add them. The training set of the ISIC challenge lacks the metadata: download "
            f"{METADATA} from {REMOTES[METADATA].url}."
        )
    for path in paths:
        if path.suffix.lower() == ".zip" and not zipfile.is_zipfile(path):
            return f"add them. {path} is not a complete archive: download it again."
    return "add them."


def _check_space(root: Path, needed: int) -> None:
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DataError(
            f"The rest of the installation in {root} needs {needed / 1e9:.2f} GB, but only "
            f"{free / 1e9:.2f} GB are free: free some space or choose another root."
        )


def _unpack(piece: Piece, files: list[Path], root: Path) -> None:
    unpacked = root / DOWNLOADS / f"{piece.target}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    try:
        with entries(piece, files) as contents, byte_bar() as bar:
            task = bar.add_task(piece.target, total=sum(entry.size for entry in contents.values()))
            for name, entry in contents.items():
                with entry.open() as source, (unpacked / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                bar.advance(task, entry.size)
        if piece.table:
            _as_csv(unpacked / piece.target, files[0])
        _move(unpacked, piece.folder(root))
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _move(unpacked: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(unpacked, folder)
        return
    for file in unpacked.iterdir():  # completes or repairs an earlier installation
        os.replace(file, folder / file.name)


def _as_csv(path: Path, origin: Path) -> None:
    """Rewrite a table of any encoding and separator, such as tabs, in the release's format."""
    header, *body = rows(path, origin)
    if not {"image_id", "image"} & set(header):
        raise DataError(f"{origin} is not a table of images: download it again.")
    if path.read_bytes().startswith(",".join(header).encode()):
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *body])
