"""Attention maps of the runs: thumbnails small enough for the page, and their scores."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.compare.runs import TestedRun

MAX_EDGE = 480  # pixels of an image and its maps side by side
MAX_CHARACTERS = 12_000_000  # of all thumbnails together
SCORES = ("energy", "pointing", "lesion_area")


@dataclass(frozen=True)
class Thumbnail:
    """An image in the page.

    Args:
        run: Run that the image belongs to.
        file: Name of the file.
        jpeg: JPEG in base 64.
    """

    run: TestedRun
    file: str
    jpeg: str


def thumbnails(
    runs: Sequence[TestedRun], budget: int = MAX_CHARACTERS
) -> tuple[list[Thumbnail], int]:
    """The first images of each run's ``attention/``, and the number of images left out.

    Args:
        runs: Runs, which take turns.
        budget: Characters that all thumbnails together may have.
    """
    per_run = [[(run, path) for path in _images(run.folder)] for run in runs]
    in_turn = [item for item in chain(*zip_longest(*per_run)) if item is not None]
    kept, left_out = [], 0
    for run, path in in_turn:
        jpeg = _jpeg(path) if budget > 0 else None
        budget -= len(jpeg or "")
        if jpeg is None or budget < 0:
            left_out += 1
        else:
            kept.append(Thumbnail(run, path.name, jpeg))
    return kept, left_out


def attention_scores(runs: Sequence[TestedRun]) -> dict[str, float]:
    """Energy, pointing and lesion area of the test, averaged over the runs that recorded them."""
    measured = [run for run in runs if _has_scores(run)]
    return {
        name: float(np.mean([run.history[f"test/{name}"].dropna().iloc[-1] for run in measured]))
        for name in SCORES
        if measured
    }


def _has_scores(run: TestedRun) -> bool:
    columns = [f"test/{name}" for name in SCORES]
    return set(columns) <= set(run.history) and bool(run.history[columns].notna().any().all())


def _images(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = (folder / "attention").glob("*")
    return sorted(path for path in files if path.suffix.lower() in (".png", ".jpg", ".jpeg"))


def _jpeg(path: Path) -> str | None:
    """The image as a small JPEG in base 64; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((MAX_EDGE, MAX_EDGE))
    except OSError:
        return None
    file = BytesIO()
    small.save(file, "JPEG", quality=75)
    return b64encode(file.getvalue()).decode()
