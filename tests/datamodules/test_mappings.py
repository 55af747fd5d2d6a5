"""The tables from other data sets' labels to HAM10000's classes."""

import doctest

import pandas as pd
import pytest

from datamodules import DataError, mappings
from datamodules.classes import CLASSES
from datamodules.mappings import FOLDER, map_labels, read_mapping


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.csv")])
def test_mappings_lead_to_classes_of_ham10000(name):
    mapping = read_mapping(name)
    assert set(mapping.values()) <= {"", *CLASSES}
    table = pd.read_csv(FOLDER / f"{name}.csv", comment="#", dtype=str, keep_default_na=False)
    assert table["label"].is_unique
    assert (table["title"] != "").all()
    assert table.loc[table["ham10000"] != "", "source"].ne("").all()


def test_the_example_of_a_mapping():
    assert doctest.testmod(mappings) == (0, 3)


def test_an_unknown_mapping():
    with pytest.raises(DataError, match="choose one of derm7pt, fitzpatrick17k"):
        read_mapping("other")


def test_terms_that_differ_in_case_are_one_class():
    for name in (path.stem for path in FOLDER.glob("*.csv")):
        map_labels(list(read_mapping(name)), CLASSES, name)


def test_the_archive_has_all_classes_in_its_new_terms_as_adopt_writes_them():
    terms = ["Melanoma_in_situ", "Nevus", "Basal_cell_carcinoma", "Solar_or_actinic_keratosis"]
    terms += ["Solar_lentigo", "Dermatofibroma", "Hemangioma", "Melanoma_metastasis"]
    found = map_labels(terms, CLASSES, "isic_archive")
    assert list(found.values()) == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", ""]


def test_labels_are_mapped_by_name_or_by_a_table_of_ones_own(tmp_path):
    assert map_labels(["a", "B", "c"], ["a", "b"]) == {"a": "a", "B": "", "c": ""}
    file = tmp_path / "mine.csv"
    file.write_text("label,class\nSome eczema,eczema\nscar,\n0,acne\nNA,acne\n")
    found = map_labels(["some_Eczema", "scar", "0", "wart", "NA"], ["eczema", "acne"], str(file))
    assert found == {"some_Eczema": "eczema", "scar": "", "0": "acne", "wart": "", "NA": "acne"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,class\na,z\n", "maps labels to z, but the run's classes are x, y"),
        ("label,class\na b,x\nA_b,y\n", "maps a_b to x and y: keep one row"),
        ("name,class\na,x\n", "has no column label"),
        ("label,class\nother,x\n", "None of the labels a, b is one of the classes x, y according"),
    ],
)
def test_a_mapping_that_cannot_be_used(tmp_path, text, message):
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        map_labels(["a", "b"], ["x", "y"], str(file))


def test_without_a_common_name_the_tables_are_named():
    with pytest.raises(DataError, match="by name: set --mapping to a CSV .* or to one of derm7pt"):
        map_labels(["MEL"], ["mel"])
