"""Saliency maps of a run, small enough to travel in the page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path

from PIL import Image

from experiments.compare.runs import Run

EDGE = 480  # an image and its maps side by side
BUDGET = 12_000_000  # characters of all thumbnails together


@dataclass(frozen=True)
class Thumbnail:
    """An image in the page.

    Args:
        run: Whose it is.
        file: Its name.
        jpeg: Its bytes in base 64.
    """

    run: Run
    file: str
    jpeg: str


def thumbnails(runs: Sequence[Run], budget: int = BUDGET) -> tuple[list[Thumbnail], int]:
    """The first images of each run's ``saliency/``, run by run, and how many found no room."""
    each = [[(run, path) for path in _images(run.folder)] for run in runs]
    in_turn = [one for one in chain(*zip_longest(*each)) if one is not None]
    kept, left_out = [], 0
    for run, path in in_turn:
        jpeg = _jpeg(path) if budget > 0 else None
        budget -= len(jpeg or "")
        if jpeg is None or budget < 0:
            left_out += 1
        else:
            kept.append(Thumbnail(run, path.name, jpeg))
    return kept, left_out


def _images(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    found = (folder / "saliency").glob("*")
    return sorted(path for path in found if path.suffix.lower() in (".png", ".jpg", ".jpeg"))


def _jpeg(path: Path) -> str | None:
    """None of what cannot be read."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((EDGE, EDGE))
    except OSError:
        return None
    file = BytesIO()
    small.save(file, "JPEG", quality=75)
    return b64encode(file.getvalue()).decode()
