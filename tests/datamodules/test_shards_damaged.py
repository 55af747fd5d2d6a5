"""Shards that are damaged, incomplete, or used from a folder that is not writable."""

import pytest
import torch
import yaml

from datamodules import DataError, LesionData
from datamodules.shards import shard
from datamodules.splits import Stratified
from tests.own_data import draw


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "mine")


@pytest.fixture
def local(drawn, tmp_path):
    """Shards in a folder, and another folder that reads them from there."""
    shard(drawn, str(tmp_path / "shards"), size=16, images=8)
    (tmp_path / "copies").mkdir()
    write(tmp_path / "copies", shards=str(tmp_path / "shards"))
    return tmp_path / "shards", tmp_path / "copies"


def write(root, **description):
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))


def first_images(root):
    return LesionData(root, Stratified(), size=16).gather(range(40))["image"]


@pytest.mark.parametrize("damaged", [b"", b"\x93NUMPY\1\0v\0", b"no array"])
def test_a_copy_that_was_cut_off_is_downloaded_again(local, damaged):
    whole = first_images(local[1])
    for file in sorted(local[1].glob("cache/table*/*/*.npy"))[:2]:
        file.write_bytes(damaged)
    next(local[1].glob("cache/*.arrow")).write_bytes(damaged)
    torch.testing.assert_close(first_images(local[1]), whole)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("kind", ["table/image*/000000.npy", "table-*.arrow"])
def test_a_damaged_shard_is_named(local, place, kind):
    next(local[0].glob(kind)).write_bytes(b"no array")
    with pytest.raises(DataError, match="is damaged .*: remove it, and write the shards again"):
        first_images(local[place])


@pytest.mark.parametrize("key", ["images", "size", "table", "arrays", "synthetic"])
def test_an_incomplete_record_of_shards_is_refused(local, key):
    record = yaml.safe_load((local[0] / "dataset.yaml").read_text())
    for value in (None, [1], -1):
        record["shards"][key] = value
        if value is None:
            del record["shards"][key]
        write(local[0], **record)
        for root in local if key != "synthetic" or value is None else ():
            with pytest.raises(DataError, match="no shards, or an incomplete record of them"):
                first_images(root)


@pytest.mark.parametrize("gigabytes", [None, 0, "many", float("nan")])
def test_a_size_of_the_cache_that_is_none_is_refused(local, gigabytes):
    write(local[1], shards=str(local[0]), cache_gb=gigabytes)
    with pytest.raises(DataError, match="`cache_gb` is"):
        first_images(local[1])


def test_shards_are_used_from_a_folder_that_is_not_writable(local, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("datamodules.shard_folder.os.access", lambda path, mode: False)
    assert len(first_images(local[1])) == 40
    assert not list(local[1].glob("cache/table*"))
    assert list((tmp_path / "home").rglob("*.npy"))


@pytest.mark.parametrize("option", ["size", "images", "processes"])
def test_numbers_of_shards_below_one_are_refused(drawn, tmp_path, option):
    with pytest.raises(DataError, match=f"--{option}=0: set it to 1 or more"):
        shard(drawn, str(tmp_path / "new"), **{option: 0})
    assert not (tmp_path / "new").exists()
