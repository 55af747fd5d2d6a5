"""Synthetic lesions in the layout of HAM10000, to try everything out without the data."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from rich.progress import track

from datamodules.classes import CLASSES
from datamodules.drawing import Artist
from datamodules.errors import DataError
from datamodules.layout import IMAGE_FOLDERS, MASK_FOLDER, METADATA, SYNTHETIC

VERSION = 1  # increase it when the drawings change
MIN_IMAGES = 40  # so that every class can be split
IMAGES_PER_LESION = (1, 1, 1, 2, 1, 1, 1, 3)  # repeated over the lesions of each class
SITES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face")

# Images in HAM10000 and mean age in years, in the order of CLASSES.
CLASS_COUNTS = (1113, 6705, 514, 327, 1099, 115, 142)
MEAN_AGES = (61, 46, 67, 67, 64, 53, 51)


def synthesize(
    root: Path = Path("data/demo"), images: int = 1000, seed: int = 0, width: int = 200
) -> None:
    """Draw synthetic lesions in the layout of HAM10000, to try everything out without the data.

    The classes are as imbalanced as in HAM10000, but none is too rare to be split. Some lesions
    have several images. The same arguments give the same files, which are not drawn again.

    Args:
        root: Folder to fill. Earlier synthetic lesions in it are replaced; a folder with any other
            files is refused.
        images: Number of images, at least 40.
        seed: Seed of the drawings.
        width: Width of the images, in pixels; their height is three quarters of it.

    Raises:
        DataError: There are too few images for seven classes, or ``root`` contains other files.
    """
    marker = (
        "Drawings of skin lesions, not patients: good for trying out the code, not for results.\n"
        f"version={VERSION} images={images} seed={seed} width={width}\n"
    )
    lesions = _plan(images, seed)
    if _contains(root, marker):
        print(f"{root} already contains these {images} synthetic images.")
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        new = Path(temporary, "new")
        _draw(new, lesions, seed, width)
        (new / SYNTHETIC).write_text(marker)
        if root.exists():
            os.replace(root, Path(temporary, "old"))
        os.replace(new, root)
    print(f"{root} contains {images} synthetic images of {len(lesions)} lesions.")


def _contains(root: Path, marker: str) -> bool:
    """Whether ``root`` contains these very drawings; refuses to replace other files."""
    names = {path.name for path in root.iterdir()} if root.exists() else set()
    drawn = {SYNTHETIC, METADATA, MASK_FOLDER, *IMAGE_FOLDERS, "cache"}
    others = names - drawn if SYNTHETIC in names else names
    if others:
        raise DataError(
            f"{root} contains {min(others)}, which is not part of a synthetic data set and would "
            "be lost: choose another folder."
        )
    return bool(names) and (root / SYNTHETIC).read_text() == marker


def _plan(images: int, seed: int) -> list[tuple[int, range]]:
    """The class and the images of each lesion, in an order that is independent of the class."""
    if images < MIN_IMAGES:
        raise DataError(f"{images} images are too few for seven classes: set {MIN_IMAGES} or more.")
    share = np.array(CLASS_COUNTS) / sum(CLASS_COUNTS)
    counts = np.maximum((images * share).round(), round(0.8 * images**0.5)).astype(int)
    counts[CLASSES.index("nv")] += images - counts.sum()
    sizes = [(label, size) for label, count in enumerate(counts) for size in _lesion_sizes(count)]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
    shuffled = [sizes[i] for i in order]
    ends = accumulate(size for _, size in shuffled)
    return [
        (label, range(end - size, end)) for (label, size), end in zip(shuffled, ends, strict=True)
    ]


def _lesion_sizes(count: int) -> list[int]:
    """The number of images of each lesion of a class with ``count`` images."""
    ends = np.cumsum(np.resize(IMAGES_PER_LESION, count)).clip(max=count)
    return [size for size in np.diff(ends, prepend=0).tolist() if size]


def _draw(folder: Path, lesions: list[tuple[int, range]], seed: int, width: int) -> None:
    for name in (*IMAGE_FOLDERS, MASK_FOLDER):
        (folder / name).mkdir(parents=True)
    half = lesions[-1][1].stop // 2

    def draw(number: int) -> list[dict[str, object]]:
        # Each lesion has its own stream, so that the number of cores changes nothing.
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
        label, images = lesions[number]
        patient = _patient(rng, label)
        artist = Artist(rng, label, width)
        names = [f"ISIC_{24306 + image:07d}" for image in images]
        for image, name in zip(images, names, strict=True):
            picture, mask = artist.draw()
            Image.fromarray(picture).save(
                folder / IMAGE_FOLDERS[image >= half] / f"{name}.jpg", quality=90
            )
            Image.fromarray(mask).save(folder / MASK_FOLDER / f"{name}_segmentation.png")
        lesion = {"lesion_id": f"HAM_{118 + number:07d}"}
        return [lesion | {"image_id": name} | patient for name in names]

    # Threads suffice, because OpenCV, numpy and Pillow release the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(draw, range(len(lesions)))
        rows = chain(*track(results, "Drawing", total=len(lesions), transient=True))
        pd.DataFrame(rows).to_csv(folder / METADATA, index=False)


def _patient(rng: np.random.Generator, label: int) -> dict[str, object]:
    return {
        "dx": CLASSES[label],
        "dx_type": str(rng.choice(["histo", "consensus"])),
        "age": 5.0 * round(min(max(rng.normal(MEAN_AGES[label], 14), 0), 85) / 5),
        "sex": str(rng.choice(["male", "female"])),
        "localization": str(rng.choice(SITES)),
    }
