import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from datamodules import cache
from datamodules.cache import cached, read_image, read_mask, release_arrays
from datamodules.dataset import DataError, image_files, read_table


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"ISIC_{i}.jpg" for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("RGB", (20, 15), (40 * i, 0, 255)).save(path)
    return paths


def test_rows_are_what_the_reader_makes(files, tmp_path):
    rows = cached(tmp_path / "cache", "image", files, 8)
    assert rows.shape == (6, 8, 8, 3)
    assert not rows.flags.writeable
    assert all(np.array_equal(row, read_image(f, 8)) for row, f in zip(rows, files, strict=True))


def test_area_average_of_a_mask(tmp_path):
    half = np.zeros((4, 6), dtype=np.uint8)
    half[:, :3] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 2).tolist() == [[255, 0], [255, 0]]
    assert read_mask(tmp_path / "mask.png", 1).tolist() == [[128]]


def test_built_once_and_again_when_a_file_changes(files, tmp_path, monkeypatch):
    built = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda path, *a: (built.append(path), build(path, *a)))
    for _ in range(2):
        cached(tmp_path / "cache", "image", files, 8)
    Image.new("RGB", (20, 15)).save(files[0])
    rows = cached(tmp_path / "cache", "image", files, 8)
    assert not rows[0].any()
    assert len(built) == len(set(built)) == 2


def test_several_that_start_at_once_build_once(files, tmp_path, monkeypatch):
    built = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda path, *a: (built.append(path), build(path, *a)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cached(tmp_path / "cache", "image", files, 8), range(4)))
    assert len(built) == 1


def test_all_unreadable_files_are_named_and_nothing_is_left(files, tmp_path):
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: len(whole) // 2])
    files[4].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)2 of 6 image files.*ISIC_1.*ISIC_4") as error:
        cached(tmp_path / "cache", "image", files, 8)
    assert "make data" in str(error.value)
    assert not [p for p in os.listdir(tmp_path / "cache") if not p.endswith(".lock")]


def test_too_little_space(files, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Usage())
    with pytest.raises(DataError, match="GB are free"):
        cached(tmp_path / "cache", "image", files, 8)


class Usage:
    free = 10


def test_release_has_images_masks_and_saliency(lesions):
    table = read_table(lesions)
    arrays = release_arrays(lesions, table, "ham10000", 16, ["mask", "saliency"])
    assert {name: a.shape for name, a in arrays.items()} == {
        "image": (400, 16, 16, 3),
        "mask": (400, 16, 16),
        "saliency": (400, 16, 16),
    }
    last = image_files(lesions)[table["image_id"].iloc[-1]]
    assert np.array_equal(arrays["image"][-1], read_image(last, 16))


def test_missing_file_is_named(lesions, tmp_path):
    table = read_table(lesions).replace("ISIC_0024307", "ISIC_9999999")
    with pytest.raises(DataError, match="1 image files are not in .*ISIC_9999999"):
        release_arrays(lesions, table, "ham10000", 16)
