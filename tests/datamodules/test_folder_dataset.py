import os
from pathlib import Path

import pytest
from PIL import Image

from datamodules.cache import read_image
from datamodules.errors import DataError
from datamodules.folder_dataset import FolderDataset


def test_folder_is_decoded_and_bad_files_are_marked(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "deep" / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").touch()
    dataset = FolderDataset(tmp_path, 4, read_image)
    batch = dataset.__getitems__([0, 1])
    assert [file.name for file in dataset.files] == ["b.jpg", "a.png"]
    assert batch["readable"].tolist() == [False, True]
    assert batch["image"][1, :, 0, 0].tolist() == [255, 0, 0]
    assert not batch["image"][0].any()


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path, "PNG")


def test_folder_has_a_row_for_every_photo_and_names_the_rest(tmp_path):
    """Photos known by suffix or content, links, and folders with the names of photos."""
    folder = tmp_path / "photos"
    photos = ["a.PNG", "b.jfif", "c.avif", "no_ending", "d.dat", "folder.jpg/inside.png"]
    for name in (*photos, "linked/e.gif"):
        photo(folder / name)
    (folder / "linked").rename(tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked" / "round").symlink_to(folder)  # a circle
    (folder / "annex.jpg").symlink_to("nothing.jpg")
    for name in ("f.HEIC", "g.dcm", "h.dng", "i.txt", "j", "k.eps"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    os.mkfifo(folder / "pipe.jpg")  # would block whoever opens it
    dataset = FolderDataset(folder, 4, read_image)
    rows = {str(file.relative_to(folder)) for file in dataset.files}
    assert rows == {*photos, "linked/e.gif", "annex.jpg"}
    assert "7 files were left out" in dataset.remark
    assert all(kind in dataset.remark for kind in ("1 .heic", "1 .dcm", "1 .dng", "f.HEIC", "pipe"))
    batch = dataset.__getitems__(range(len(dataset)))
    assert batch["readable"].sum() == len(dataset) - 1
    annex = dataset.files.index(folder / "annex.jpg")
    assert dataset.why_unreadable(annex) == "a link to nothing.jpg, which does not exist"


@pytest.mark.parametrize(
    "hidden",
    ["._a.png", ".hidden/a.png", "__MACOSX/._a.png", "__MACOSX/a.png", "Thumbs.db", ".DS_Store",
     "desktop.ini", "@eaDir/a.png"],
)  # fmt: skip
def test_what_systems_hide_is_passed_over(tmp_path, hidden):
    folder = tmp_path / ".cache" / "photos"  # only what is below the folder counts
    photo(folder / "a.png")
    photo(folder / hidden)
    dataset = FolderDataset(folder, 4, read_image)
    assert dataset.files == [folder / "a.png"]
    assert dataset.remark == ""


def test_a_photo_in_place_of_a_folder(tmp_path, monkeypatch):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = FolderDataset(Path("~/a.png"), 4, read_image)
    assert dataset.files == [tmp_path / "a.png"]
    assert dataset.folder == tmp_path


@pytest.mark.parametrize("name", ["", "notes.txt", "photos.zip"])
def test_folder_without_images(tmp_path, name):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "photos.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(DataError, match="contains no image.*files were left out.*(notes|photos)"):
        FolderDataset(tmp_path / name, 4, read_image)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        FolderDataset(tmp_path / "nowhere", 4, read_image)
