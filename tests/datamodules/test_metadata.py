from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from datamodules.errors import DataError
from datamodules.layout import METADATA, NO_LESION, SYNTHETIC
from datamodules.metadata import join_lesions, read_table

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
ROWS = ["HAM_2,ISIC_2,nv,histo,45.0,male,back", "HAM_1,ISIC_1,mel,histo,,male,back"]


def write(root, *rows):
    (root / METADATA).write_text(HEADER + "\n".join(rows) + "\n")


def test_table_is_ordered_by_image(tmp_path):
    write(tmp_path, *ROWS)
    table = read_table(tmp_path)
    assert table["image_id"].tolist() == ["ISIC_1", "ISIC_2"]
    assert table["row"].tolist() == [0, 1]


def test_dataverse_table_with_tabs(tmp_path):
    write(tmp_path, *ROWS)
    comma = read_table(tmp_path)
    text = (tmp_path / METADATA).read_text()
    (tmp_path / METADATA).write_text(text.replace(",", "\t"))
    pd.testing.assert_frame_equal(read_table(tmp_path), comma)


def test_no_data_names_the_ways_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"make data.*make demo"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "HAM_3,ISIC_3,wart,histo,1,male,back"], r"ISIC_3 the class 'wart'.*1 such rows"),
        ([*ROWS, ROWS[0]], r"ISIC_2 more than once"),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, message):
    write(tmp_path, *rows)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path)


def test_table_without_a_needed_column(tmp_path):
    (tmp_path / METADATA).write_text("image_id,dx\nISIC_1,nv\n")
    with pytest.raises(DataError, match="no column.*lesion_id"):
        read_table(tmp_path)


def test_official_sets_are_appended_by_class_name(tmp_path):
    write(tmp_path, *ROWS)
    columns = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
    for part, rows in {
        "Validation": "ISIC_5,0.0,0.0,0.0,1.0,0.0,0.0,0.0\n",
        "Test": f"ISIC_6,0,0,0,0,0,0,1\n{NO_LESION},0,1,0,0,0,0,0\n",
    }.items():
        (tmp_path / f"ISIC2018_Task3_{part}_GroundTruth.csv").write_text(columns + rows)
    table = read_table(tmp_path)
    official = table[table["source"] != "ham10000"]
    assert official[["image_id", "dx", "source", "row"]].to_numpy().tolist() == [
        ["ISIC_5", "akiec", "val", 0],
        ["ISIC_6", "vasc", "test", 0],
    ]


def test_official_table_of_the_dataverse(tmp_path):
    write(tmp_path, *ROWS)
    row = "HAM_9,ISIC_6,vasc,histo,1,male,back,vidir_modern\n"
    header = HEADER.replace("\n", ",dataset\n")
    (tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv").write_text(header + row)
    official = read_table(tmp_path).iloc[-1]
    assert official[["lesion_id", "dx", "source"]].tolist() == ["HAM_9", "vasc", "test"]


# The first of the known pairs.
TWO_IDS = ["HAM_8,ISIC_0033481,nv,histo,40,male,back", "HAM_9,ISIC_0033421,nv,histo,40,male,back"]


def test_a_lesion_with_two_ids_gets_one_and_the_metadata_stay(tmp_path):
    write(tmp_path, *TWO_IDS, *ROWS)
    released = (tmp_path / METADATA).read_text()
    assert read_table(tmp_path)[["image_id", "lesion_id"]].to_numpy().tolist() == [
        ["ISIC_0033421", "HAM_9"],
        ["ISIC_0033481", "HAM_9"],
        ["ISIC_1", "HAM_1"],
        ["ISIC_2", "HAM_2"],
    ]
    assert (tmp_path / METADATA).read_text() == released


def test_synthetic_lesions_are_not_joined(tmp_path):
    write(tmp_path, *TWO_IDS)
    (tmp_path / SYNTHETIC).touch()
    assert read_table(tmp_path)["lesion_id"].tolist() == ["HAM_9", "HAM_8"]


def test_a_lesion_with_two_ids_and_two_diagnoses_is_refused(tmp_path):
    write(tmp_path, TWO_IDS[0], TWO_IDS[1].replace("nv", "mel"))
    with pytest.raises(DataError, match=r"HAM_8, HAM_9 are one lesion .* \(mel, nv\)"):
        read_table(tmp_path)


def images_of(*lesions):
    """One image per lesion: a, b, c ..."""
    return pd.DataFrame({"image_id": list("abcdefgh")[: len(lesions)], "lesion_id": lesions})


@pytest.mark.parametrize(
    ("pairs", "lesions"),
    [
        ([], ["1", "2", "2", "3", "4", "5"]),
        (["ab"], ["2", "2", "2", "3", "4", "5"]),  # brings the other image of lesion 2 along
        (["ab", "de"], ["2", "2", "2", "4", "4", "5"]),
        (["ab", "cd"], ["3", "3", "3", "3", "4", "5"]),  # a chain through lesion 2
        (["ab", "cd", "de", "ef"], ["5"] * 6),
        (["ab", "cd", "da"], ["3", "3", "3", "3", "4", "5"]),  # a circle
        (["bc"], ["1", "2", "2", "3", "4", "5"]),  # one lesion already
        (["ax", "xf", "yz"], ["1", "2", "2", "3", "4", "5"]),  # x, y and z are absent
    ],
)
def test_joined_lesions_depend_on_no_order(pairs, lesions):
    table = images_of("1", "2", "2", "3", "4", "5").assign(dx="nv")
    for order in permutations(pairs):
        for flipped in (order, [pair[::-1] for pair in order]):
            joined = join_lesions(table, [tuple(pair) for pair in flipped])
            assert joined["lesion_id"].tolist() == lesions
            shuffled = join_lesions(table.sample(frac=1, random_state=0), map(tuple, flipped))
            pd.testing.assert_frame_equal(shuffled.sort_index(), joined)
    assert table["lesion_id"].tolist() == ["1", "2", "2", "3", "4", "5"]


def test_joined_lesions_are_the_components_of_the_graph():
    draw = np.random.default_rng(0)
    for _ in range(50):
        table = images_of(*map(str, draw.integers(6, size=8))).assign(dx="nv")
        pairs = [tuple(pair) for pair in draw.choice(list("abcdefghxy"), size=(4, 2))]
        label = table["lesion_id"].to_numpy(copy=True)
        edges = [table["image_id"].isin(pair) for pair in pairs if not set(pair) & set("xy")]
        for _ in range(8):  # spreads the last id along lesions and pairs until nothing changes
            for edge in edges:
                members = np.isin(label, label[edge])
                label[members] = max(label[members])
        assert join_lesions(table, pairs)["lesion_id"].tolist() == label.tolist()
