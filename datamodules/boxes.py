"""Boxes around lesions, which stand for their masks."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.pixels import upright_size

FRAGMENT = "#xywh="  # of W3C's media fragments


class Box(NamedTuple):
    """A box around the lesion of an image, in pixels of the upright image.

    Args:
        x: Left edge.
        y: Upper edge.
        width: Width, at least 1.
        height: Height, at least 1.

    Examples:
        >>> Box.parse("10, 20, 100, 80")
        Box(x=10, y=20, width=100, height=80)
        >>> Box.parse("10 20 100 80").of("0001.jpg")
        '0001.jpg#xywh=10,20,100,80'
    """

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Box:
        """The box of a text ``x y width height``, separated by spaces or commas.

        Raises:
            ValueError: The text is something else, or the box has no pixel.
        """
        words = re.split(r"[\s,;]+", text.strip("[]() "))
        numbers = [float(word) for word in words]
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{text} is no box")
        x, y, width, height = map(round, numbers)
        if min(x, y) < 0 or min(width, height) < 1:
            raise ValueError(f"{text} is not a box")
        return cls(x, y, width, height)

    def of(self, image: str) -> str:
        """The image's name with the box as a fragment; it takes the place of a mask file's name."""
        return f"{image}{FRAGMENT}{','.join(map(str, self))}"

    def fits(self, image: Path) -> bool:
        """Whether the box is within its image."""
        width, height = upright_size(image)
        return self.x + self.width <= width and self.y + self.height <= height

    def inside(self, image: Path) -> np.ndarray:
        """The mask (H, W), uint8: 255 inside the box, 0 outside."""
        width, height = upright_size(image)
        mask = np.zeros((height, width), np.uint8)
        mask[self.y : self.y + self.height, self.x : self.x + self.width] = 255
        return mask


def whole_file(name: Path | str) -> str:
    """The file name without the fragment of a box."""
    return str(name).partition(FRAGMENT)[0]


def box_of(name: Path | str) -> Box | None:
    """The box in a name with a fragment; None for the name of a file."""
    _, fragment, text = str(name).partition(FRAGMENT)
    return Box.parse(text) if fragment else None
