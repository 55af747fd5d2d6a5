"""Drawings of skin lesions in the layout of HAM10000, to try everything out without the data."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from rich.progress import track

from datamodules.dataset import CLASSES, IMAGE_FOLDERS, MASK_FOLDER, METADATA, SYNTHETIC, DataError

VERSION = 1  # raise it when the drawings change
FEWEST = 40  # images in which every class can still be split
VIEWS = (1, 1, 1, 2, 1, 1, 1, 3)  # images of a lesion, of the next one, and so on in each class
SITES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face")

# What makes a class look like itself. Lengths are in units of the lesion's radius, which is in
# units of the picture's height; colours are RGB.
# fmt: off
LOOKS = {
    # CLASSES:      mel       nv        bcc       akiec     bkl       df        vasc
    "radius":      (0.32,     0.22,     0.27,     0.31,     0.29,     0.27,     0.18),
    "irregular":   (0.18,     0.05,     0.10,     0.14,     0.09,     0.05,     0.08),  # outline
    "ragged":      (0.09,     0.05,     0.08,     0.20,     0.03,     0.06,     0.03),  # border
    "soft":        (0.18,     0.22,     0.35,     0.60,     0.07,     0.60,     0.10),  # border
    "opacity":     (0.92,     0.88,     0.80,     0.72,     0.85,     0.75,     0.93),
    "mottle":      (0.90,     0.30,     0.50,     0.60,     0.55,     0.30,     0.50),  # patches
    "veil":        (0.45,     0.40,     0.35,     0.10,     0.05,     0.85,     0.20),  # centre
    "network":     (0.30,     0.25,     0.00,     0.05,     0.15,     0.20,     0.00),
    "dots":        (10,       5,        5,        34,       20,       1,        9),
    "dot_radius":  (0.07,     0.04,     0.10,     0.055,    0.045,    0.05,     0.22),
    "vessels":     (0,        0,        9,        3,        0,        0,        1),
}
COLOURS = {
    "body":        (0x6E412C, 0x8A5238, 0xD88488, 0xC4685E, 0xA87A58, 0xA66C54, 0xA8243E),
    "patch":       (0x1E1618, 0x6A3A28, 0xC06070, 0xDCA088, 0x6E4E38, 0x8A5242, 0x4A1A4A),
    "centre":      (0x7E8CA6, 0x5A3222, 0xE8B8B4, 0xD88C80, 0x9A7450, 0xECCABC, 0x7A1838),
    "dot":         (0x17100F, 0x4A2A1E, 0x5E5C6E, 0xF2E6DC, 0xEEDDBE, 0xE8D0C0, 0x6A0E2C),
}
IMAGES =           (1113,     6705,     514,      327,      1099,     115,      142)  # HAM10000
AGES =             (61,       46,       67,       67,       64,       53,       51)
# fmt: on
TONES = (0xE0A89C, 0xD0829A, 0xE4D2CC, 0xA89298, 0xDC8C78, 0xC8A888)  # of skin, in their light
VESSEL, HAIR, GLINT = 0xB02838, 0x2A1C18, 0xFFFFFF


def synthesize(
    root: Path = Path("data/demo"), images: int = 1000, seed: int = 0, width: int = 200
) -> None:
    """Draws synthetic lesions in the layout of HAM10000, to try everything out without the data.

    The classes are as unequal as in HAM10000, but none is too rare to be split; several images
    may show the same lesion. The same arguments give the same files, and are not drawn twice.

    Args:
        root: The folder to fill; other drawings in it are replaced, anything else is left alone.
        images: How many to draw, at least 40.
        seed: Another seed draws other lesions.
        width: Of the images, in pixels; they are three quarters as high.

    Raises:
        DataError: There are too few images for seven classes, or ``root`` holds something else.
    """
    marker = (
        "Drawings of skin lesions, not patients: good for trying out the code, not for results.\n"
        f"version={VERSION} images={images} seed={seed} width={width}\n"
    )
    lesions = _plan(images, seed)
    if _holds(root, marker):
        print(f"{root} already holds these {images} drawings.")
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as aside:
        new = Path(aside, "new")
        _draw(new, lesions, seed, width)
        (new / SYNTHETIC).write_text(marker)
        if root.exists():
            os.replace(root, Path(aside, "old"))
        os.replace(new, root)
    print(f"{root} holds {images} drawings of {len(lesions)} lesions.")


def _holds(root: Path, marker: str) -> bool:
    """Whether ``root`` holds just what would be drawn; raises if drawing would destroy data."""
    found = {path.name for path in root.iterdir()} if root.exists() else set()
    drawn = {SYNTHETIC, METADATA, MASK_FOLDER, *IMAGE_FOLDERS, "cache"}
    others = found - drawn if SYNTHETIC in found else found
    if others:
        raise DataError(
            f"{root} holds {min(others)}, which was not drawn here and would be lost: "
            "name another folder, or empty this one."
        )
    return bool(found) and (root / SYNTHETIC).read_text() == marker


def _plan(images: int, seed: int) -> list[tuple[int, range]]:
    """The class and the images of each lesion, in an order that says nothing about the class."""
    if images < FEWEST:
        raise DataError(f"{images} images are too few for seven classes: ask for {FEWEST} or more.")
    share = np.array(IMAGES) / sum(IMAGES)
    counts = np.maximum((images * share).round(), round(0.8 * images**0.5)).astype(int)
    counts[CLASSES.index("nv")] += images - counts.sum()
    each = [(label, views) for label, count in enumerate(counts) for views in _views(count)]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(each))
    ends = accumulate(each[i][1] for i in order)
    return [(each[i][0], range(end - each[i][1], end)) for i, end in zip(order, ends, strict=True)]


def _views(count: int) -> list[int]:
    seen = np.cumsum(np.resize(VIEWS, count)).clip(max=count)
    return [views for views in np.diff(seen, prepend=0).tolist() if views]


def _draw(folder: Path, lesions: list[tuple[int, range]], seed: int, width: int) -> None:
    for name in (*IMAGE_FOLDERS, MASK_FOLDER):
        (folder / name).mkdir(parents=True)
    half = lesions[-1][1].stop // 2

    def draw(number: int) -> list[dict[str, Any]]:
        # Each lesion has its own stream, so that the number of cores changes nothing.
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
        label, images = lesions[number]
        patient, artist = _patient(rng, label), Artist(rng, label, width)
        names = [f"ISIC_{24306 + image:07d}" for image in images]
        for image, name in zip(images, names, strict=True):
            picture, mask = artist.draw()
            part = folder / IMAGE_FOLDERS[image >= half]
            Image.fromarray(picture).save(part / f"{name}.jpg", quality=90)
            Image.fromarray(mask).save(folder / MASK_FOLDER / f"{name}_segmentation.png")
        lesion = {"lesion_id": f"HAM_{118 + number:07d}"}
        return [lesion | {"image_id": name} | patient for name in names]

    # Threads suffice: OpenCV, numpy and PIL release the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(draw, range(len(lesions)))
        rows = chain(*track(drawn, "Drawing", total=len(lesions), transient=True))
        pd.DataFrame(rows).to_csv(folder / METADATA, index=False)


def _patient(rng: np.random.Generator, label: int) -> dict[str, Any]:
    return {
        "dx": CLASSES[label],
        "dx_type": str(rng.choice(["histo", "consensus"])),
        "age": 5.0 * round(min(max(rng.normal(AGES[label], 14), 0), 85) / 5),
        "sex": str(rng.choice(["male", "female"])),
        "localization": str(rng.choice(SITES)),
    }


class Artist:
    """Draws one lesion and the skin around it, as often as asked."""

    def __init__(self, rng: np.random.Generator, label: int, width: int) -> None:
        self.rng, self.shape = rng, (width * 3 // 4, width)
        # The look of a class is varied, and drawn towards that of another: some lesions deceive.
        other, mix = rng.integers(len(CLASSES)), 0.7 * rng.beta(0.8, 2.0)
        classes = np.eye(len(CLASSES))
        weights = (1 - mix) * classes[label] + mix * classes[other]
        self.look = {k: float(weights @ v * np.exp(rng.normal(0, 0.2))) for k, v in LOOKS.items()}
        self.colours = {
            k: _f32(weights @ _rgb(*v) * rng.normal(1, 0.1)) for k, v in COLOURS.items()
        }
        self.tone = _f32(rng.dirichlet([0.4] * len(TONES)) @ _rgb(*TONES))
        self.canvas = self._canvas(self.look["radius"] * self.shape[0])

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """A picture (H, W, 3) and its mask (H, W), uint8; pose, light and hair differ each time."""
        middle, (angle, zoom) = len(self.canvas) / 2, self.rng.uniform((0, 0.8), (360, 1.25))
        turn = _f32(cv2.getRotationMatrix2D((middle, middle), angle, zoom))
        turn[:, 2] += self.rng.normal(0.5, 0.04, 2) * self.shape[::-1] - middle
        lesion = _f32(cv2.warpAffine(self.canvas, turn, self.shape[::-1]))
        picture = _over(self._skin(), self.look["opacity"] * lesion[..., 3], lesion[..., :3])
        picture = np.clip(255 * self._photograph(picture), 0, 255).astype(np.uint8)
        return picture, 255 * (lesion[..., 3] > 0.5).astype(np.uint8)

    def _canvas(self, unit: float) -> np.ndarray:
        """The lesion from above, (S, S, 4): its colours, and where it is, in [0, 1]."""
        look, colours, side = self.look, self.colours, int(3.2 * unit) + 2
        noise = partial(self._noise, (side, side), unit)
        y, x = np.mgrid[:side, :side].astype(np.float32) / unit - 1.6
        depth = self._outline(np.arctan2(y, x)) - np.hypot(x, y) + look["ragged"] * noise(0.08)
        at = 2 * look["irregular"] * self.rng.standard_normal(2, np.float32)
        veil = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 0.35 + 0.3 * noise(0.1))
        layers = (
            (look["mottle"] / (1 + np.exp(-5 * noise(0.18))), colours["patch"]),
            (look["veil"] * veil, colours["centre"]),
            (look["network"] * (1 - 1.5 * abs(noise(0.035))), 0.4 * colours["body"]),
            (0.25 * noise(0.12), self.tone),  # where the skin shows through
            (self._dots(side, unit) * (0.8 + 0.3 * noise(0.04)), colours["dot"]),
            (0.8 * self._curves((side, side), look["vessels"], 0.7 * unit), _rgb(VESSEL)),
        )
        picture = colours["body"] * (1 + 0.05 * noise(0.07) + 0.05 * noise(0.02))[..., None]
        for alpha, colour in layers:
            picture = _over(picture, alpha, colour)
        light = 0.6 + 0.4 * self.tone / _rgb(*TONES).mean(0)  # falls on skin and lesion alike
        return np.dstack([light * picture, np.clip(depth / look["soft"] + 0.5, 0, 1)])

    def _noise(self, shape: tuple[int, int], unit: float, scale: float) -> np.ndarray:
        """Smooth noise of mean 0 and deviation 1, in spots of ``scale`` units of pixels."""
        noise = self.rng.standard_normal(shape, np.float32)
        noise = _f32(cv2.GaussianBlur(noise, (0, 0), max(scale * unit, 0.3)))
        return _f32((noise - noise.mean()) / noise.std())

    def _outline(self, angle: np.ndarray) -> np.ndarray:
        """The distance of the border from the centre in every direction, about 1."""
        outline = np.ones_like(angle)
        for k in range(2, 9):
            size = 2 * self.look["irregular"] / k * self.rng.normal()
            outline += size * np.cos(k * angle + self.rng.uniform(0, 7))
        return outline

    def _dots(self, side: int, unit: float) -> np.ndarray:
        alpha = np.zeros((side, side), np.uint8)
        for _ in range(round(self.look["dots"])):
            x, y = (16 * (side / 2 + unit * self.rng.normal(0, 0.42, 2))).astype(int).tolist()
            radius = unit * self.look["dot_radius"] * self.rng.uniform(0.5, 1.3)
            cv2.circle(alpha, (x, y), int(16 * radius), 255, -1, cv2.LINE_AA, 4)
        return _f32(cv2.GaussianBlur(alpha, (0, 0), 0.02 * unit + 0.3) / 255)

    def _curves(self, shape: tuple[int, int], count: float, length: float) -> np.ndarray:
        """Bent strokes, as coverage in [0, 1]."""
        alpha = np.zeros(shape, np.uint8)
        for _ in range(round(count)):
            angle = self.rng.uniform(0, 7) + self.rng.normal(0, 0.8) * np.linspace(0, 1, 12)
            steps = np.stack([np.cos(angle), np.sin(angle)], 1) * self.rng.uniform(0.02, 0.1)
            path = self.rng.uniform(0.1, 0.9, 2) * shape[::-1] + length * steps.cumsum(0)
            ink = int(self.rng.integers(120, 255))
            cv2.polylines(alpha, [(16 * path).astype(np.int32)], False, ink, 1, cv2.LINE_AA, 4)
        return _f32(alpha / 255)

    def _skin(self) -> np.ndarray:
        noise = partial(self._noise, self.shape, self.shape[0])
        skin = self.tone * (1 + 0.03 * noise(0.1) + 0.025 * noise(0.01))[..., None]
        skin = _over(skin, 0.2 * noise(0.05), self.tone * _f32([1.0, 0.8, 0.82]))  # flushed
        freckles = 0.35 * np.clip(noise(0.03) - self.rng.uniform(1.2, 3), 0, 1)
        return _over(skin, freckles, self.tone * _f32([0.75, 0.55, 0.45]))

    def _photograph(self, picture: np.ndarray) -> np.ndarray:
        """Hair, glints of the gel, light, and the dark corners of some dermatoscopes."""
        rng, (height, width) = self.rng, self.shape
        hairs = rng.uniform(2, 20) if rng.random() < 0.25 else 0
        picture = _over(picture, 0.7 * self._curves(self.shape, hairs, height), _rgb(HAIR))
        glints = self._noise(self.shape, height, 0.008) - rng.uniform(2.5, 6)
        picture = _over(picture, glints, _rgb(GLINT))
        y, x = np.mgrid[:height, :width].astype(np.float32) / height - 0.5
        r = np.hypot(x - x.mean(), y)
        light = (1 - 0.15 * r**2) * (1 + rng.normal(0, 0.1) * y)
        if rng.random() < 0.3:
            light *= np.clip((rng.uniform(0.58, 0.8) - r) / 0.04, 0.03, 1)
        tint = _f32(rng.normal(1.05, 0.06) * rng.normal(1, 0.03, 3))
        grain = 0.01 * rng.standard_normal(self.shape, np.float32)
        return _f32(picture * light[..., None] * tint + grain[..., None])


def _over(picture: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return _f32(picture + np.clip(alpha, 0, 1)[..., None] * (colour - picture))


def _rgb(*codes: int) -> np.ndarray:
    return _f32([[(code >> shift & 255) / 255 for shift in (16, 8, 0)] for code in codes])


def _f32(values: npt.ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)
