"""The search for images of one lesion under two ids, on synthetic lesions."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datamodules.classes import CLASSES
from datamodules.duplicates import Fingerprint, near_duplicates
from datamodules.layout import IMAGE_FOLDERS, METADATA, OFFICIAL
from datamodules.verify import verify


@pytest.fixture(scope="module")
def pictures(lesions) -> list[np.ndarray]:
    """An image of each of 60 lesions."""
    with (lesions / METADATA).open() as file:
        first = {row["lesion_id"]: row["image_id"] for row in csv.DictReader(file)}
    files = [next(lesions.glob(f"*/{image}.jpg")) for image in list(first.values())[:60]]
    return [np.array(Image.open(file).convert("RGB")) for file in files]


def search(pictures, groups=None):
    fingerprints = [Fingerprint.of(picture) for picture in pictures]
    found = near_duplicates(fingerprints, groups or [str(i) for i in range(len(pictures))])
    return [pair[:2] for pair in found]


def encoded(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=50)
    return np.array(Image.open(file))


def cropped(picture):
    height, width = picture.shape[:2]
    return picture[height // 12 :, : -width // 16]


CHANGES = {
    "copied": lambda picture: picture,
    "encoded": encoded,
    "cropped": cropped,
    "turned": lambda picture: np.array(Image.fromarray(picture).rotate(5)),
    "darker": lambda picture: (picture * [0.8, 0.7, 0.75]).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_under_another_lesion_and_only_there(pictures, change):
    copies = [CHANGES[change](picture) for picture in pictures[:5]]
    found = search([*pictures, *copies])
    assert sorted(found) == [(i, 60 + i) for i in range(5)]
    same = [*(str(i) for i in range(60)), *(str(i) for i in range(5))]
    assert search([*pictures, *copies], same) == []


def test_images_without_any_structure_are_no_duplicates():
    assert search([np.full((90, 120, 3), value, np.uint8) for value in (0, 90, 90, 255)]) == []


@pytest.fixture
def root(tmp_path, pictures):
    """A release of five lesions, three of them copied, and an official test set of three images."""
    copies = [encoded(pictures[0]), cropped(pictures[1]), pictures[2]]
    own = dict(zip([f"ISIC_{i:07d}" for i in range(8)], [*pictures[:5], *copies], strict=True))
    lesions = ["HAM_0", "HAM_1", "HAM_2", "HAM_3", "HAM_4", "HAM_5", "HAM_6", "HAM_2"]
    table = pd.DataFrame({"lesion_id": lesions, "image_id": own.keys(), "dx": "nv"})
    table.to_csv(tmp_path / METADATA, index=False)
    val = {"ISIC_0000010": pictures[9], "ISIC_0000011": pictures[9], "ISIC_0000012": pictures[3]}
    one_hot = {name.upper(): int(name == "mel") for name in CLASSES}
    truth = pd.DataFrame([{"image": name} | one_hot for name in val])
    truth.to_csv(tmp_path / f"{OFFICIAL['val']}_GroundTruth.csv", index=False)
    for folder, images in {IMAGE_FOLDERS[0]: own, f"{OFFICIAL['val']}_Input": val}.items():
        (tmp_path / folder).mkdir()
        for name, picture in images.items():
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.jpg", quality=95)
    return tmp_path


def test_verify_reports_what_may_leak_and_changes_nothing(root, tmp_path, capsys):
    released = (root / METADATA).read_text()
    verify(root, tmp_path / "pairs.csv")
    pairs = pd.read_csv(tmp_path / "pairs.csv", dtype=str).sort_values("image_id")
    assert pairs.iloc[:, :6].to_numpy().tolist() == [
        ["ISIC_0000000", "ISIC_0000005", "HAM_0", "HAM_5", "nv", "nv"],
        ["ISIC_0000001", "ISIC_0000006", "HAM_1", "HAM_6", "nv", "nv"],
        ["ISIC_0000003", "ISIC_0000012", "HAM_3", "ISIC_0000012", "nv", "mel"],
    ]
    out = capsys.readouterr().out
    assert "Note: 3 pairs of images seem to show the same skin under different lesion ids" in out
    assert "ISIC_0000003 (nv) ISIC_0000012 (mel): " in out
    assert (root / METADATA).read_text() == released


def test_verify_finds_no_duplicates_among_synthetic_lesions(lesions, capsys):
    verify(lesions)
    assert "same skin" not in capsys.readouterr().out
