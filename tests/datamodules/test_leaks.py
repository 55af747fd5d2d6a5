"""The search for images of another data set that a run has seen, on drawn lesions."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datamodules import DataError
from datamodules.drawing import Artist
from datamodules.leaks import SAME_GROUP, SAME_IMAGE, SAME_PIXELS, find_leaks
from datamodules.table_folder import TableFolder

LESIONS = 8


@pytest.fixture(scope="module")
def pictures():
    """Two images of each of some lesions, (2, H, W, 3)."""
    artists = [Artist(np.random.default_rng(n), n % 7, 160) for n in range(2 * LESIONS)]
    return [np.stack([artist.draw()[0] for _ in range(2)]) for artist in artists]


def folder(root, images, **columns):
    """A data set of named images, a pair of file name and pixels each."""
    (root / "images").mkdir(parents=True)
    for name, pixels in images:
        Image.fromarray(pixels).save(root / "images" / name, quality=60)
    names = [name.rpartition(".")[0] for name, _ in images]
    labels = ["a" if i % 2 else "b" for i in range(len(names))]
    table = pd.DataFrame({"image": names, "label": labels, **columns})
    table.to_csv(root / "table.csv", index=False)
    (root / "dataset.yaml").write_text("classes: [a, b]\n")
    return TableFolder(root)


@pytest.fixture
def own(tmp_path, pictures):
    images = [(f"mine{i}.png", pair[0]) for i, pair in enumerate(pictures[:LESIONS])]
    patients = [f"p{i}" for i in range(LESIONS - 1)] + ["unknown"]
    return folder(tmp_path / "own", images, patient=patients)


def found(own, other):
    leaks = find_leaks(own.table, own, other.table, other)
    return leaks, {image: why for image, why in leaks.why.items() if why}


def test_copies_of_pixels_are_found_under_any_name(tmp_path, pictures, own):
    new = [(f"new{i}.png", pair[0]) for i, pair in enumerate(pictures[LESIONS:])]
    copies = [("copy.bmp", pictures[2][0]), ("encoded.jpg", pictures[3][0])]
    leaks, why = found(own, folder(tmp_path / "other", [*copies, *new]))
    assert why == {"copy": SAME_PIXELS}
    assert leaks.near[["image_id", "seen_image_id"]].to_numpy().tolist() == [["encoded", "mine3"]]
    assert leaks.near[["dx", "seen_dx"]].to_numpy().tolist() == [["a", "a"]]
    assert leaks.near["keypoints"].min() >= 9
    assert leaks.remarks == ()


def test_another_image_of_a_known_lesion_or_patient_is_no_new_one(tmp_path, pictures, own):
    images = [("copy.png", pictures[2][0]), ("again.png", pictures[9][0])]
    images += [("third.png", pictures[10][0]), ("fourth.png", pictures[11][0])]
    other = folder(tmp_path / "other", images, patient=["x", "x", "p5", "unknown"])
    assert found(own, other)[1] == {"copy": SAME_PIXELS, "again": SAME_GROUP, "third": SAME_GROUP}


def test_images_with_an_id_in_common_are_one_image_if_they_look_alike(tmp_path, pictures, own):
    images = [(f"mine{i}.jpg", pictures[i][0][:-3, 2:]) for i in range(3)]
    leaks, why = found(own, folder(tmp_path / "other", [*images, ("new.png", pictures[9][0])]))
    assert why == {f"mine{i}": SAME_IMAGE for i in range(3)}
    assert leaks.remarks == ()


def test_ids_that_are_equal_by_chance_are_ignored(tmp_path, pictures, own):
    images = [(f"mine{i}.png", pictures[LESIONS + i][0]) for i in range(4)]
    patients = ["p0", "p1", "p2", "p3"]
    leaks, why = found(own, folder(tmp_path / "other", images, patient=patients))
    assert why == {}
    assert leaks.remarks == (
        "4 image ids occur in both data sets, but these images look different: ids were ignored.",
    )


def test_without_the_images_only_ids_are_compared(tmp_path, pictures, own):
    images = [("mine1.png", pictures[1][0]), ("copy.png", pictures[2][0])]
    other = folder(tmp_path / "other", images, patient=["y", "p4"])
    leaks = find_leaks(own.table, None, other.table, other)
    assert leaks.why.to_dict() == {"copy": SAME_GROUP, "mine1": SAME_IMAGE}
    assert "are not on this machine: only ids were compared" in leaks.remarks[0]
    assert leaks.near.empty


def test_images_that_cannot_be_compared_are_named(tmp_path, pictures, own):
    other = folder(tmp_path / "other", [("new.png", pictures[9][0])])
    gone = own.table.iloc[:1].assign(image_id="gone", lesion_id="gone")
    leaks = find_leaks(pd.concat([own.table, gone]), own, other.table, other)
    assert leaks.remarks == ("1 of 9 images that the run has seen are not available.",)
    (other.root / "images" / "new.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="new.png is damaged"):
        find_leaks(own.table, own, other.table, other)
