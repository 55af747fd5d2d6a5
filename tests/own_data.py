"""A small data set of one's own: three skin diseases, drawn as colors, grouped by patient."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

COLORS = {"psoriasis": (200, 80, 80), "eczema": (180, 150, 120), "acne": (120, 60, 140)}
PATIENTS = {"psoriasis": 24, "eczema": 14, "acne": 8}
DISEASES = list(COLORS)


def draw(
    root: Path,
    classes: Sequence[str] = tuple(DISEASES),
    patients: Mapping[str, int] = PATIENTS,
    tint: tuple[int, int, int] = (0, 0, 0),
    seed: int = 0,
    **options: object,
) -> Path:
    """Write ``dataset.yaml``, ``table.csv`` and the folders of images and masks.

    Args:
        root: Folder of the data set.
        classes: Classes of the data set.
        patients: Number of patients of each class.
        tint: Shift of all colors, as of another camera.
        seed: Seed of the noise.
        **options: Further keys of ``dataset.yaml``.
    """
    for folder in ("pictures", "masks"):
        (root / folder).mkdir(parents=True)
    draws, rows = np.random.default_rng(seed), []
    for disease in classes:
        for patient in range(patients[disease]):
            for _ in range(1 + patient % 2):
                name = f"{len(rows):04d}"
                pixels = draws.normal(np.add(COLORS[disease], tint), 30, (24, 32, 3)).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(root / "pictures" / f"{name}.png")
                mask = np.zeros((24, 32), np.uint8)
                mask[6:18, 8:24] = 255
                Image.fromarray(mask).save(root / "masks" / f"{name}.png")
                rows.append((name, disease, f"{disease}-{patient}", 20 + patient, "female"))
    columns = ["file", "diagnosis", "patient", "age", "sex"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "table.csv", index=False)
    describe(root, classes=list(classes), **options)
    return root


def describe(root: Path, **options: object) -> None:
    """Write ``dataset.yaml`` for the table that :func:`draw` writes."""
    known = {"images": "pictures", "columns": {"image": "file", "label": "diagnosis"}}
    (root / "dataset.yaml").write_text(yaml.safe_dump(known | options, sort_keys=False))
