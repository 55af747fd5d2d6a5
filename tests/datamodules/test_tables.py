"""One table in the formats of many programs."""

import pandas as pd
import pytest

from datamodules import tables
from datamodules.errors import DataError
from datamodules.install import _as_csv
from datamodules.layout import METADATA
from datamodules.metadata import read_table, without_lesion_id
from datamodules.tables import read_csv
from datamodules.verify import differences

TEXT = (
    "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
    "HAM_2,ISIC_2,nv,histo,45.5,male,décolleté\n"
    'HAM_1,ISIC_1,mel,histo,,male,"back, left"\n'
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
LINES = {"unix": "\n", "windows": "\r\n", "old macs": "\r", "blank": "\n\n"}


def expected(tmp_path):
    (tmp_path / "plain.csv").write_text(TEXT, encoding="utf-8")
    return read_csv(tmp_path / "plain.csv")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("lines", LINES)
def test_encodings_and_ends_of_lines(tmp_path, encoding, lines):
    path = tmp_path / METADATA
    path.write_bytes(TEXT.replace("\n", LINES[lines]).encode(encoding))
    pd.testing.assert_frame_equal(read_csv(path), expected(tmp_path))
    assert len(read_table(tmp_path)) == 2
    assert differences(tmp_path)["missing"] == ["ISIC_1.jpg", "ISIC_2.jpg"]
    _as_csv(path, path)
    pd.testing.assert_frame_equal(read_csv(path), expected(tmp_path))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("head", ["", "sep={}\n", "\ufeff"])
def test_separators(tmp_path, separator, head):
    text = TEXT.replace('"back, left"', "back. left").replace(",", separator)
    text = text.replace("back.", "back,").replace("45.5", "45,5" if separator == ";" else "45.5")
    (tmp_path / "a.csv").write_text(head.format(separator) + text, encoding="utf-8")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), expected(tmp_path))


def test_lines_that_end_with_a_separator(tmp_path):
    (tmp_path / "a.csv").write_text(TEXT.replace("\n", ",\n"), encoding="utf-8")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), expected(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"PK\x03\x04 a workbook", "is not a table"),
        (b'a,"b\n', "is not a table"),
        (b"\xff\xfea", "is not a table"),
        (b"image_id,dx,lesion_id\nISIC_1,nv\n", "damaged row"),
        (b"image_id,dx,lesion_id\nISIC_1,nv,HAM_1,more\n", "damaged row"),
        (b"image_id,dx,lesion_id\n", "has 0 rows"),
        (b"image_id,dx,lesion_id\n,nv,HAM_1\n", "without an image_id"),
        (b"image_id,dx\nISIC_1,nv\n", "no column lesion_id"),
        (b"<!DOCTYPE html>\n", "no column"),
    ],
)
def test_what_is_no_table_is_one_sentence_that_names_the_file(tmp_path, content, message):
    (tmp_path / METADATA).write_bytes(content)
    with pytest.raises(DataError, match=rf"{METADATA} .*{message}"):
        read_table(tmp_path)


def test_a_table_that_cannot_be_opened(tmp_path):
    (tmp_path / METADATA).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


@pytest.mark.parametrize("unknown", ["", "NA", "nan", "Unknown", " ", "NULL", "n/a", "-"])
def test_an_image_without_a_lesion_is_one(tmp_path, unknown):
    rows = ["HAM_1,ISIC_1,nv", f"{unknown},ISIC_2,nv", f"{unknown},ISIC_3,nv", "7,ISIC_4,nv"]
    (tmp_path / METADATA).write_text("\n".join(["lesion_id,image_id,dx", *rows]))
    table = read_table(tmp_path)
    assert table["lesion_id"].tolist() == ["HAM_1", "ISIC_2", "ISIC_3", "7"]
    assert without_lesion_id(table) == 2


@pytest.mark.parametrize("row", ["ISIC_5,0,0,0,0,0,0,0", "ISIC_5,1,1,0,0,0,0,0"])
def test_a_challenge_row_without_one_class_is_refused(tmp_path, row):
    (tmp_path / METADATA).write_text(TEXT, encoding="utf-8")
    truth = tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv"
    truth.write_text(f"image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n{row}\n")
    with pytest.raises(DataError, match="does not give ISIC_5 exactly one of the classes"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("image,label\n1,nv\n2,\n", True),
        ("image,label\n1,nv\n2,mel", True),
        ('image,label\n"1",nv\n', False),  # quotes
        ("image,label\n1,nv\n\n", False),  # a blank line
        ("image,label\n,\n", False),  # a blank row
        ("image, label\n1,nv\n", False),  # a header to be stripped
        ("image;label\n1;2,5\n", False),  # decimal commas
    ],
)
def test_plain_tables_are_read_by_pandas_alone(tmp_path, monkeypatch, text, plain):
    assert tables._is_plain(text.encode(), tables._separator(text)) is plain
    (tmp_path / "a.csv").write_text(text)
    found = read_csv(tmp_path / "a.csv")
    monkeypatch.setattr(tables, "_is_plain", lambda *_: False)
    pd.testing.assert_frame_equal(found, read_csv(tmp_path / "a.csv"))


def test_tables_with_short_rows_are_not_plain():
    assert not tables._is_plain(b"image,label\n1\n", ",")
