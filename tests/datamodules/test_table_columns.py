"""Columns, keys and files of a data set that differ from those of the documentation."""

import os

import pandas as pd
import pytest

from datamodules import DataError
from datamodules.verify import verify
from tests.datamodules.test_table_folder import change, data
from tests.own_data import DISEASES, describe, draw


@pytest.fixture
def root(tmp_path):
    return draw(tmp_path / "mine")


def test_keys_without_a_value_are_left_out(root):
    describe(root, classes=DISEASES, images="pictures", masks=None, group=None, shots=None)
    assert (data(root).table["lesion_id"] != data(root).table["image_id"]).all()


def test_classes_that_are_numbers_are_text_everywhere(root):
    table = pd.read_csv(root / "table.csv", dtype=str)
    change(root, diagnosis=table["diagnosis"].map({"psoriasis": "1", "eczema": "2", "acne": "3"}))
    shots = {"many": [1], "medium": [2], "few": [3]}
    groups = {"shots": shots, "taxonomy": {"all": [1, 2, 3]}}
    describe(root, classes=[1, 2, 3], tasks={"rest": [2, 3]}, **groups)
    assert data(root).shots == {"many": ["1"], "medium": ["2"], "few": ["3"]}
    assert data(root, task="rest").class_names == ("2", "3")


def test_other_columns_of_our_names_are_not_used(root):
    before = data(root).table
    ours = ("label", "image", "image_id", "dx", "lesion_id", "source", "row", "image_file", "split")
    change(root, **dict.fromkeys(ours, "another"))
    names = {"image": "file", "label": "diagnosis", "split": "fold"}
    describe(root, classes=DISEASES, columns=names)
    found = data(root).table
    assert found[["image_id", "dx", "lesion_id"]].equals(before[["image_id", "dx", "lesion_id"]])


def test_a_column_may_have_two_meanings(root):
    names = {"image": "file", "label": "diagnosis", "lesion": "patient", "site": "sex"}
    describe(root, classes=DISEASES, columns=names)
    found = data(root).table
    assert found["lesion_id"].str.match("(psoriasis|eczema|acne)-").all()
    assert found["localization"].eq("female").all()
    assert found["patient"].equals(found["lesion"])


def test_a_class_and_an_image_may_be_called_none(root):
    table = pd.read_csv(root / "table.csv", dtype=str)
    (root / "pictures" / "0000.png").rename(root / "pictures" / "NA.png")
    names = {"psoriasis": "None", "eczema": "NA", "acne": "nan"}
    change(root, diagnosis=table["diagnosis"].map(names), file=["NA", *table["file"][1:]])
    describe(root, classes=list(names.values()))
    found = data(root).table
    assert set(found["dx"]) == set(names.values())
    assert "NA" in set(found["image_id"])
    change(root, diagnosis=[None, *table["diagnosis"].map(names)[1:]])
    with pytest.raises(DataError, match="1 row has no image or no label: 2"):
        _ = data(root).table


def test_a_box_of_an_image_that_is_damaged_is_not_called_a_bad_box(root):
    change(root, box=["0 0 1 1"] * len(pd.read_csv(root / "table.csv")))
    (root / "pictures" / "0000.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")
    (root / "masks" / "0000.png").unlink()
    assert len(data(root).table)


def test_a_file_whose_name_is_not_in_utf_8_is_left_out_and_told(root, capsys):
    picture = (root / "pictures" / "0000.png").read_bytes()
    with open(os.fsencode(root / "pictures") + b"/l\xe9sion.png", "wb") as file:
        file.write(picture)
    module = data(root)
    module.prepare_data()
    assert len(module.table) == 69
    assert "1 files are left out" in (told := capsys.readouterr().out)
    assert r"l\xe9sion.png" in told


def test_a_group_of_numbers(root):
    describe(root, classes=DISEASES, group="age")
    assert data(root).table.groupby("lesion_id")["age"].nunique().max() == 1


def test_verify_decodes_every_file(root, tmp_path, capsys):
    verify(root, tmp_path / "pairs.csv")
    told = capsys.readouterr().out
    assert "69 images of 46 groups by patient, 69 masks; all of them are readable." in told
    assert pd.read_csv(tmp_path / "pairs.csv").columns[:2].tolist() == [
        "image_id",
        "other_image_id",
    ]
    (root / "masks" / "0003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 69 masks cannot be read: replace .*\n.*0003.png"):
        verify(root)
    (root / "pictures" / "0004.png").unlink()
    with pytest.raises(DataError, match="1 row has an image without a file: 0004"):
        verify(root)
