"""Adopting folders with odd names, and folders that are not writable."""

import errno
import os

import pandas as pd
import pytest

from datamodules import DataError
from datamodules.adopt import adopt
from tests import public_layouts


@pytest.fixture
def root(tmp_path):
    """Images in a folder per class."""
    public_layouts.class_folders(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_name_that_is_not_in_utf_8_is_a_problem(root, capsys):
    renamed = os.fsencode(root / "psoriasis") + b"/l\xe9sion.jpg"
    (root / "psoriasis" / "000.jpg").rename(os.fsdecode(renamed))
    with pytest.raises(DataError, match=r"1 files have a name .*l\\xe9sion.jpg the first"):
        adopt(root)
    adopt(root, skip=True)
    assert "1 files have a name that is not in UTF-8 and are left out" in capsys.readouterr().out
    assert len(pd.read_csv(root / "table.csv")) == len(list(root.rglob("*.jpg"))) - 1


def test_a_folder_that_cannot_be_written_to(root, monkeypatch):
    def read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("datamodules.folders.tempfile.TemporaryDirectory", read_only)
    with pytest.raises(DataError, match="cannot be written to .*: set --out to another folder"):
        adopt(root)


def test_a_label_without_letters(root):
    (root / "psoriasis").rename(root / "???")
    with pytest.raises(DataError, match=r"The label '\?\?\?' has neither letters nor digits"):
        adopt(root)
