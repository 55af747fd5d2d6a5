"""Adopting data sets in the layouts of their publishers, drawn in small."""

import runpy
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from datamodules import DataError, LesionData
from datamodules.adopt import LAYOUTS as READERS
from datamodules.adopt import adopt
from datamodules.adopt_source import code_of
from datamodules.classes import CLASSES
from datamodules.splits import Official, Stratified
from tests import public_layouts
from tests.public_layouts import LAYOUTS, SPLIT, photo


def below(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def data(root, split=None):
    return LesionData(root, split or Stratified(), size=16, batch_size=4, num_workers=0)


def read(root):
    return pd.read_csv(root / "table.csv", dtype=str, keep_default_na=False)


@pytest.fixture
def root(tmp_path):
    """Images in a folder per class."""
    public_layouts.class_folders(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def pad(tmp_path):
    public_layouts.pad_ufes_20(tmp_path / "pad")
    return tmp_path / "pad"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_adopted_layout_is_a_data_set(layout, tmp_path, capsys):
    draw, images, classes, group, groups = LAYOUTS[layout]
    source, target = tmp_path / "theirs", tmp_path / "ours"
    draw(source)
    before = below(source)
    adopt(source, out=target)
    said = capsys.readouterr().out
    assert below(source) == before
    description = yaml.safe_load((target / "dataset.yaml").read_text())
    assert description.get("group", "") == group
    assert f"Groups: {groups} by {group}" in said or not group
    given = layout in SPLIT and not group
    module = data(target, Official(val_fraction=0.2) if given else Stratified())
    assert sorted(module.class_names) == sorted(map(code_of, classes))
    assert len(module.table) == images
    assert module.table["lesion_id"].nunique() == groups
    assert ("given_split" in module.table) == (layout in SPLIT)
    module.prepare_data()
    left_out = "because table.csv has no row" in capsys.readouterr().out
    assert left_out == (layout in {"ham10000", "fitzpatrick17k_c"})  # copies; duplicates
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)


def test_every_reader_has_a_drawn_layout():
    assert {reader.__name__ for reader in READERS} - {"challenge", "archive"} <= LAYOUTS.keys()


@pytest.mark.parametrize("layout", ["class_folders", "ham10000", "dermamnist", "isic_archive"])
def test_files_are_written_beside_the_images(layout, tmp_path, capsys):
    LAYOUTS[layout][0](tmp_path)
    before = below(tmp_path)
    adopt(tmp_path)
    new = {name for name in below(tmp_path) if name not in before}
    assert {name for name in new if "/" not in name} == {"table.csv", "dataset.yaml"}
    module = data(tmp_path)
    module.prepare_data()
    module.prepare_data()  # the cache is no image of the data set
    left_out = "because table.csv has no row" in capsys.readouterr().out
    assert left_out == (layout == "ham10000")
    with pytest.raises(DataError, match="dataset.yaml exists: set --out"):
        adopt(tmp_path)
    written = below(tmp_path)["table.csv"]
    adopt(tmp_path, overwrite=True)
    assert below(tmp_path)["table.csv"] == written
    assert len(data(tmp_path).table) == LAYOUTS[layout][1]


def test_the_metadata_are_kept(pad):
    adopt(pad)
    row = read(pad).iloc[0]
    assert (row["age"], row["sex"], row["site"], row["tone"]) == ("55", "female", "neck", "3.0")
    assert (row["patient"], row["lesion"], row["kind"]) == ("PAT_0", "PAT_0-0", "clinical")
    assert data(pad).classes.titles["SEK"] == "seborrheic keratosis"


def test_complete_sets_of_known_classes_have_their_description(tmp_path):
    public_layouts.dermamnist(tmp_path)
    adopt(tmp_path / "dermamnist.npz")
    assert data(tmp_path).class_names == CLASSES
    assert data(tmp_path).taxonomy


def test_the_labels_of_dermamnist_and_its_pixels(tmp_path, capsys):
    public_layouts.dermamnist(tmp_path)
    adopt(tmp_path)
    assert "separate images of a lesion" in " ".join(capsys.readouterr().out.split())
    codes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    table = read(tmp_path).set_index("image")
    assert table.loc[[f"val-{i:05d}" for i in range(7)], "label"].tolist() == codes
    pixels = np.load(tmp_path / "dermamnist.npz")["test_images"][3]
    assert (np.asarray(Image.open(tmp_path / "images" / "test-00003.png")) == pixels).all()


def test_images_without_a_patient_stay_with_their_lesion(tmp_path):
    public_layouts.isic_archive(tmp_path)
    adopt(tmp_path)
    table = read(tmp_path)
    assert (table["patient"] != "").all()
    assert table.groupby("lesion")["patient"].nunique().max() == 1


def test_a_lesion_in_two_splits_is_told(tmp_path, capsys):
    public_layouts.isic2018(tmp_path)
    path = tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv"
    extra = pd.DataFrame([("ISIC_0000040", "HAM_0-0", "x")], columns=pd.read_csv(path).columns)
    extra.to_csv(path, mode="a", header=False, index=False)
    adopt(tmp_path)
    assert "separates the images of 1 groups" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["milk10k", "derm7pt", "isic_archive"])
def test_one_kind_of_image(layout, tmp_path, capsys):
    LAYOUTS[layout][0](tmp_path / "theirs")
    adopt(tmp_path / "theirs", out=tmp_path / "both")
    assert "images of several kinds" in capsys.readouterr().out
    adopt(tmp_path / "theirs", out=tmp_path / "one", kind="clinical")
    assert set(read(tmp_path / "one")["kind"]) == {"clinical"}
    assert len(data(tmp_path / "one").table) == LAYOUTS[layout][1] // 2
    with pytest.raises(DataError, match="choose one of clinical, dermoscopic"):
        adopt(tmp_path / "theirs", out=tmp_path / "none", kind="TBP")
    assert not (tmp_path / "none").exists()


def test_another_column_of_labels(tmp_path):
    public_layouts.fitzpatrick17k(tmp_path / "theirs")
    adopt(tmp_path / "theirs", out=tmp_path / "ours", label="three_partition_label")
    assert set(data(tmp_path / "ours").class_names) == {"benign", "non-neoplastic"}
    with pytest.raises(DataError, match="set --label to one of md5hash"):
        adopt(tmp_path / "theirs", out=tmp_path / "x", label="colour")


def mistakes(pad):
    """Make one mistake of each kind in PAD-UFES-20's table and files."""
    table = pd.read_csv(pad / "metadata.csv")
    folder = pad / "images" / "imgs_part_1"
    names = table["img_id"].tolist()
    (folder / names[0]).unlink()
    table.loc[1, "diagnostic"] = "XYZ"
    (folder / names[3]).write_bytes(b"")
    photo(pad / "copies" / names[6], 99)
    table.loc[9, "diagnostic"] = None
    again = table.loc[[12, 15]].assign(diagnostic=[table.loc[12, "diagnostic"], "SEK"])
    table.loc[15, "diagnostic"] = "NEV"
    photo(pad / "images" / "stray.png", 98)
    pd.concat([table, again]).to_csv(pad / "metadata.csv", index=False)


def test_all_mistakes_are_in_one_report_and_nothing_is_written(pad, capsys):
    mistakes(pad)
    before = below(pad)
    with pytest.raises(DataError, match="leave these rows out with --skip") as caught:
        adopt(pad)
    said = capsys.readouterr().out
    for part in (
        "no file, 1 row: PAT_0_0_0.png",
        "an unknown label, 1 row: PAT_0_0_1.png (XYZ)",
        "unreadable, 1 row: PAT_0_1_3.png (an empty file)",
        "several files of that name, 1 row: PAT_1_3_6.png",
        "two labels for one image, 2 rows: PAT_3_7_15.png (NEV, SEK)",
        "an image that has another row, 1 row: PAT_3_6_12.png",
        "1 rows have no label and are left out: PAT_2_4_9.png",
        "2 images have no label and are left out: images/imgs_part_1/PAT_1_3_6.png, images/stray",
    ):
        assert part in said, said
    assert "no file (1 row)" in str(caught.value)
    assert below(pad) == before


def test_rows_with_mistakes_can_be_left_out(pad):
    mistakes(pad)
    adopt(pad, skip=True)
    kept = read(pad)["image"]
    assert len(kept) == 80 - 6
    assert kept.is_unique
    assert len(data(pad).table) == len(kept)


def test_identical_files_with_two_labels(root):
    shutil.copy(root / "psoriasis" / "000.jpg", root / "eczema" / "other.jpg")
    with pytest.raises(DataError, match=r"two labels for one image \(2 rows\)"):
        adopt(root)


def test_identical_files_in_two_groups_are_told(root, capsys):
    shutil.copy(root / "psoriasis" / "000.jpg", root / "psoriasis" / "other.jpg")
    adopt(root)
    assert "1 images are in several groups as identical files" in capsys.readouterr().out


def test_a_lesion_of_two_patients(tmp_path):
    public_layouts.isic_archive(tmp_path)
    path = tmp_path / "metadata.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[1, "patient_id"] = "IP_1"
    table.loc[0, ["lesion_id", "patient_id"]] = ["IL_0000000", "IP_2"]
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match="a lesion that several patients have"):
        adopt(path.parent)


def test_near_duplicates_in_two_groups(root, capsys):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 40, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(root / "eczema" / "a.png")
    Image.fromarray(pixels[8:, 8:]).save(root / "eczema" / "b.png")
    adopt(root, duplicates=root.parent / "pairs.csv")
    pairs = pd.read_csv(root.parent / "pairs.csv")
    assert ["eczema/a.png", "eczema/b.png"] in pairs[["image", "other_image"]].to_numpy().tolist()
    assert "seem to show the same skin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: shutil.rmtree(root), "does not exist"),
        (lambda root: shutil.rmtree(root / "eczema"), "none of the known layouts"),
        (lambda root: [(root / f"dermamnist{i}.npz").touch() for i in "12"], "name one of them"),
        (lambda root: (root / "dermamnist.npz").write_text("x"), "not an archive of MedMNIST"),
    ],
)
def test_what_cannot_be_adopted(root, change, said):
    change(root)
    with pytest.raises(DataError, match=said):
        adopt(root, out=root.parent / "out")
    assert not (root.parent / "out").exists()


def test_other_files_do_not_matter(root):
    (root / "features.npz").write_text("x")
    photo(root / "masks" / "001.png", 0)
    photo(root / "segmentations" / "001.png", 0)
    adopt(root)
    assert set(read(root)["label"]) == {"psoriasis", "eczema"}
    with pytest.raises(DataError, match="none of the known layouts"):
        adopt(root / "features.npz", out=root.parent / "x")


def test_images_of_others_are_not_replaced(tmp_path):
    public_layouts.dermamnist(tmp_path / "theirs")
    photo(tmp_path / "ours" / "images" / "mine.png", 0)
    with pytest.raises(DataError, match="images exists: set --out"):
        adopt(tmp_path / "theirs", out=tmp_path / "ours")
    assert list(below(tmp_path / "ours")) == ["images/mine.png"]


def test_a_damaged_image_is_named_by_the_search_for_duplicates(root):
    path = root / "eczema" / "001.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="001.jpg is damaged"):
        adopt(root, duplicates=root.parent / "pairs.csv")
    assert not (root / "table.csv").exists()


def test_the_command_line(root, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["datamodules", "adopt", str(root), "--skip"])
    runpy.run_module("datamodules", run_name="__main__")
    assert "Classes: " in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["datamodules", "adopt", str(root)])
    with pytest.raises(SystemExit, match="error: .*dataset.yaml exists"):
        runpy.run_module("datamodules", run_name="__main__")


def test_a_single_label_cannot_be_chosen(root):
    with pytest.raises(DataError, match="leave out --label"):
        adopt(root, label="diagnosis")
