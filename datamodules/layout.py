"""The folders and file names of an installed release, which are those of the publishers."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from datamodules.folders import listed

METADATA = "HAM10000_metadata.csv"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
OFFICIAL = {"val": "ISIC2018_Task3_Validation", "test": "ISIC2018_Task3_Test"}
IMAGE_PATTERN = "ISIC_*.jpg"
MASK_PATTERN = "ISIC_*_segmentation.png"
NO_LESION = "ISIC_0035068"  # in the official test ground truth, but shows no lesion
SYNTHETIC = "SYNTHETIC.txt"  # marks a folder of synthetic lesions
_ALL_IMAGE_FOLDERS = (*IMAGE_FOLDERS, *(f"{name}_Input" for name in OFFICIAL.values()))


def image_files(root: Path) -> dict[str, Path]:
    """The image file of each image id."""
    return {
        Path(name).stem: root / folder / name
        for folder in _ALL_IMAGE_FOLDERS
        for name in matching(root / folder, IMAGE_PATTERN)
    }


def mask_files(root: Path) -> dict[str, Path]:
    """The lesion mask file of each image id. The official sets have no masks."""
    return {
        Path(name).stem.removesuffix("_segmentation"): root / MASK_FOLDER / name
        for name in matching(root / MASK_FOLDER, MASK_PATTERN)
    }


def missing_files(root: Path, kind: str, ids: Sequence[str]) -> str:
    """The message about missing files: which names are expected, and what to do.

    Args:
        root: Folder of the release.
        kind: ``image`` or ``mask``.
        ids: Images without such a file.
    """
    pattern = MASK_PATTERN if kind == "mask" else IMAGE_PATTERN
    candidates = (MASK_FOLDER,) if kind == "mask" else _ALL_IMAGE_FOLDERS
    folders = [name for name in candidates if (root / name).is_dir()] or candidates[:2]
    misnamed = [f"{f}/{name}" for f in folders for name in listed(root / f) if ids[0] in name]
    if misnamed:
        format_ = "PNG" if kind == "mask" else "JPEG"
        advice = f"{misnamed[0]} does not match: convert such files to {format_} and rename them."
    else:
        advice = "`make data` completes the data."
    return (
        f"{len(ids)} {kind} files are missing in {root}, {ids[0]} the first. Their names must "
        f"match {pattern}, in {' or '.join(folders)}. {advice} `python -m datamodules verify "
        f"--root {root}` lists all missing files."
    )


def matching(folder: Path, pattern: str) -> list[str]:
    """The names in a folder that match a glob pattern once their ending is as released."""
    return [name for name in listed(folder) if fnmatchcase(released_name(name), pattern)]


def released_name(name: str) -> str:
    """A file name with the release's ending: .JPG and .jpeg become .jpg, .PNG becomes .png."""
    stem, dot, ending = name.rpartition(".")
    ending = ending.lower()
    return f"{stem}{dot}{'jpg' if ending == 'jpeg' else ending}"
