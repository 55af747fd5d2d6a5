"""The tables from other data sets' labels to HAM10000's classes."""

import doctest

import pandas as pd
import pytest

from datamodules import DataError, mappings
from datamodules.classes import CLASSES
from datamodules.mappings import FOLDER, read_mapping


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.csv")])
def test_mappings_lead_to_classes_of_ham10000(name):
    mapping = read_mapping(name)
    assert set(mapping.values()) <= {"", *CLASSES}
    table = pd.read_csv(FOLDER / f"{name}.csv", comment="#", dtype=str, keep_default_na=False)
    assert table["label"].is_unique
    assert (table["title"] != "").all()
    assert table.loc[table["ham10000"] != "", "source"].ne("").all()


def test_the_example_of_a_mapping():
    assert doctest.testmod(mappings) == (0, 2)


def test_an_unknown_mapping():
    with pytest.raises(DataError, match="choose one of derm7pt, fitzpatrick17k"):
        read_mapping("other")
