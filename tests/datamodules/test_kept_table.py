"""Tables and splits that are computed once and read by all processes."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from datamodules import LesionData, kept_table, table_folder
from datamodules.splits import KFold, Split, Stratified
from datamodules.table_folder import TableFolder
from tests.own_data import DISEASES, describe, draw

OLD = time.time() - 60


def age(root):
    """Set all times back, as if nothing had changed for a while."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, (OLD, OLD))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    root = draw(tmp_path / "mine")
    age(root)
    return root


@pytest.fixture
def made(monkeypatch):
    """Record each table and each split that is computed."""
    calls = []
    table, split = TableFolder._checked_table, Stratified.__call__
    monkeypatch.setattr(TableFolder, "_checked_table", lambda s: (calls.append("t"), table(s))[1])
    monkeypatch.setattr(Stratified, "__call__", lambda s, t: (calls.append("s"), split(s, t))[1])
    return calls


def read(root, split=None):
    return LesionData(root, split or Stratified(), size=8).table


def test_a_table_is_made_once_and_read_back_the_same(root, made):
    first = read(root)
    pd.testing.assert_frame_equal(read(root), first)
    assert made == ["t", "s"]
    folder = TableFolder(root)
    pd.testing.assert_frame_equal(folder.table, folder._checked_table())
    assert read(root, Stratified(seed=1))["split"].ne(first["split"]).any()
    assert made[2:] == ["t", "s"]  # the first is this test's own


@pytest.mark.parametrize("change", ["table", "options", "another image", "one image less"])
def test_whatever_it_was_made_from_makes_it_again(root, made, change):
    read(root)
    image = root / "pictures" / "0000.png"
    if change == "table":
        table = pd.read_csv(root / "table.csv", dtype=str)
        table.assign(age="33").to_csv(root / "table.csv", index=False)
    elif change == "options":
        describe(root, classes=DISEASES[::-1])
    elif change == "another image":
        (root / "pictures" / "more.png").write_bytes(image.read_bytes())
    else:
        image.rename(root / "elsewhere.png")
        table = pd.read_csv(root / "table.csv", dtype=str)
    if change == "one image less":
        with pytest.raises(table_folder.DataError, match="an image without a file: 0000"):
            read(root)
        return
    again = read(root)
    assert made[2:] == ["t", "s"]
    if change == "table":
        assert set(again["age"]) == {33}


def test_a_folder_that_has_just_changed_is_read_by_every_process(root, made):
    os.utime(root / "table.csv")
    read(root)
    read(root)
    assert made == ["t", "s"] * 2
    assert not list((root / "cache").glob("*.arrow"))


def test_processes_that_start_at_once_make_one_table(root, made):
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(read, [root] * 4))
    assert made == ["t", "s"]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


@pytest.mark.parametrize("damage", [b"", b"ARROW1", None])
def test_a_damaged_file_is_made_again(root, made, damage):
    table = read(root)
    (path,) = (root / "cache").glob("*.arrow")
    whole = path.read_bytes()
    path.unlink()  # because this process still maps the file
    path.write_bytes(whole[:-9] if damage is None else damage)
    pd.testing.assert_frame_equal(read(root), table)
    assert made == ["t", "s", "t"]


def test_a_folder_that_cannot_be_written(root, made, tmp_path, monkeypatch):
    locked = set()
    real = kept_table.FileLock

    def lock(path):
        if path.parent in locked:
            raise PermissionError
        return real(path)

    monkeypatch.setattr(kept_table, "FileLock", lock)
    locked.add(root / "cache")
    table = read(root)
    assert len(list((tmp_path / "home" / "longderm").glob("*.arrow"))) == 1
    pd.testing.assert_frame_equal(read(root), table)
    assert made == ["t", "s"]
    locked.add(tmp_path / "home" / "longderm")
    describe(root, classes=DISEASES, tasks={"red": DISEASES[:2]})
    pd.testing.assert_frame_equal(read(root), table)


class Own(Split):
    """A split whose code its user may change from run to run."""

    def __init__(self, rest="test"):
        self.rest = rest

    def __call__(self, table):
        return pd.Series(["train", "val", self.rest] * len(table), dtype="str")[: len(table)]


def test_results_of_other_splits_are_not_kept(root):
    read(root)
    kept = len(list((root / "cache").glob("split-*.npy")))
    split = Own()
    assert set(read(root, split)["split"]) == {"train", "val", "test"}
    split.rest = ""
    assert set(read(root, split)["split"]) == {"train", "val", ""}
    assert len(list((root / "cache").glob("split-*.npy"))) == kept == 1


def test_a_task_has_its_own_split(root):
    describe(root, classes=DISEASES, tasks={"red": DISEASES[:2]})
    age(root)
    for _ in range(2):
        everything = LesionData(root, KFold(3), size=8).table
        red = LesionData(root, KFold(3), task="red", size=8).table
        assert len(red) < len(everything)
        assert red["split"].tolist() == KFold(3)(red).tolist()


def test_pixels_of_a_kept_table(root):
    """The files of a table that is read back are found where they were."""
    read(root)
    data = LesionData(root, Stratified(), size=8, mask=True)
    data.prepare_data()
    batch = data.gather([3, 1])
    assert batch["mask"].shape == (2, 1, 8, 8)
    assert Path(data.folder.locate("image", data.table)[3]) == root / "pictures" / "0003.png"
