import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import cache, memory_map, progress
from datamodules.cache import cached, cached_arrays, read_image, read_mask
from datamodules.errors import DataError
from datamodules.layout import image_files, mask_files
from datamodules.release import Release


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
    build = memory_map._compute
    monkeypatch.setattr(
        memory_map, "_compute", lambda path, *a: (built.append(path), build(path, *a))
    )
    for _ in range(2):
        cached(tmp_path / "cache", "image", files, 8)
    Image.new("RGB", (20, 15)).save(files[0])
    rows = cached(tmp_path / "cache", "image", files, 8)
    assert not rows[0].any()
    assert len(built) == len(set(built)) == 2


def test_several_that_start_at_once_build_once(files, tmp_path, monkeypatch):
    built = []
    build = memory_map._compute
    monkeypatch.setattr(
        memory_map, "_compute", lambda path, *a: (built.append(path), build(path, *a))
    )
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
    assert "delete" not in str(error.value)
    assert not [p for p in os.listdir(tmp_path / "cache") if not p.endswith(".lock")]


def test_too_little_space(files, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_map.shutil, "disk_usage", lambda _: Usage())
    with pytest.raises(DataError, match="GB are free"):
        cached(tmp_path / "cache", "image", files, 8)


@pytest.mark.parametrize("trouble", [MemoryError(), PermissionError(13, "Permission denied")])
def test_what_is_no_damage_of_the_files_is_not_called_so(files, tmp_path, monkeypatch, trouble):
    def read(path, size):
        raise trouble

    monkeypatch.setitem(cache.READERS, "image", read)
    with pytest.raises(DataError, match="the files themselves may be intact") as error:
        cached(tmp_path / "cache", "image", files, 8)
    assert "make data" not in str(error.value)
    assert "delete" not in str(error.value)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_none(lesions, size):
    with pytest.raises(DataError, match=f"data.size={size} is not an image size"):
        cached_arrays(Release(lesions), "ham10000", size)


def test_links_to_nothing_are_named(files, tmp_path):
    for file in files[2:4]:
        file.unlink()
        file.symlink_to(tmp_path / "annex" / file.name)
    with pytest.raises(DataError, match=r"(?s)2 of 6 image files.*links.*ISIC_2.*ISIC_3.*annex"):
        cached(tmp_path / "cache", "image", files, 8)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_map_is_built_again(files, tmp_path, damage):
    rows = np.array(cached(tmp_path / "cache", "image", files, 8))
    (path,) = (tmp_path / "cache").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    assert np.array_equal(cached(tmp_path / "cache", "image", files, 8), rows)


@pytest.fixture
def read_only(monkeypatch):
    """A folder in which not even root can create files."""
    temporary = memory_map.tempfile.TemporaryFile

    def refusing(dir):
        if "share" in dir.parts:
            raise OSError(errno.EROFS, "Read-only file system")
        return temporary(dir=dir)

    monkeypatch.setattr(memory_map.tempfile, "TemporaryFile", refusing)


def test_data_that_cannot_be_written_are_cached_elsewhere(files, tmp_path, read_only, capsys):
    share, other = tmp_path / "share" / "cache", tmp_path / "home"
    rows = cached(share, "image", files, 8, other)
    assert f"{share} is not writable, so the cache is kept in {other}" in capsys.readouterr().out
    assert [path.suffix for path in sorted(other.iterdir())] == [".lock", ".npy"]
    with pytest.raises(DataError, match=r"share/cache \(Read-only.*data\.cache_dir"):
        cached(share, "image", files, 8)
    for file in other.iterdir():  # as if written while that was allowed
        file.rename(share / file.name)
    assert np.array_equal(cached(share, "image", files, 8), rows)


def test_the_cache_may_lie_anywhere(lesions, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cached_arrays(Release(lesions), "ham10000", 9, cache_dir=Path("~/my cache"))
    assert len(list((tmp_path / "my cache").glob("image-9-*.npy"))) == 1
    assert not list((lesions / "cache").glob("image-9-*"))


def test_a_log_has_progress_from_the_start(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "INTERVAL", 0)
    cached(tmp_path / "cache", "image", files, 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Caching images at 8 px: 6 files"
    assert lines[-1].startswith("Caching images at 8 px: 6 of 6")


class Usage:
    free = 10


def test_release_has_images_masks_and_saliency(lesions):
    data = Release(lesions)
    arrays = cached_arrays(data, "ham10000", 16, ["mask", "saliency"])
    assert {name: a.shape for name, a in arrays.items()} == {
        "image": (400, 16, 16, 3),
        "mask": (400, 16, 16),
        "saliency": (400, 16, 16),
    }
    last = image_files(lesions)[data.table["image_id"].iloc[-1]]
    assert np.array_equal(arrays["image"][-1], read_image(last, 16))


def test_missing_file_is_named(lesions, tmp_path):
    data = Release(lesions)
    data.table = data.table.replace("ISIC_0024307", "ISIC_9999999")
    with pytest.raises(DataError, match="1 image files are missing in .*ISIC_9999999 the first"):
        cached_arrays(data, "ham10000", 16)


@pytest.mark.parametrize(
    ("kind", "misnamed", "expected"),
    [
        ("image", "HAM10000_images_part_1/ISIC_0024306.png", r"ISIC_\*\.jpg.*to JPEG"),
        (
            "mask",
            "HAM10000_segmentations_lesion_tschandl/ISIC_0024306.png",
            r"ISIC_\*_segmentation\.png.*to PNG",
        ),
    ],
)
def test_files_of_other_names_are_told_the_right_ones(lesions, tmp_path, kind, misnamed, expected):
    root = tmp_path / "own"
    shutil.copytree(lesions, root, ignore=shutil.ignore_patterns("cache"))
    file = (image_files if kind == "image" else mask_files)(root)["ISIC_0024306"]
    file.rename(root / misnamed)
    with pytest.raises(DataError, match=rf"must match {expected}") as error:
        cached_arrays(Release(root), "ham10000", 16, ["mask"])
    assert f"{misnamed} does not match" in str(error.value)


@pytest.mark.slow
def test_processes_fill_the_same_rows(files, tmp_path):
    rows = cached(tmp_path / "several", "image", files, 8, processes=2)
    assert np.array_equal(rows, cached(tmp_path / "one", "image", files, 8))
    files[4].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)1 of 6 image files.*ISIC_4.*not an image"):
        cached(tmp_path / "several", "image", files, 8, processes=2)
