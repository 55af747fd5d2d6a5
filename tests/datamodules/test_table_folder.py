import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from datamodules import DataError, LesionData
from datamodules.splits import Balanced, KFold, Official, Stratified
from tests.own_data import DISEASES, describe, draw


@pytest.fixture
def root(tmp_path):
    return draw(tmp_path / "mine")


def data(root, split=None, **options):
    options = {"size": 16, "batch_size": 8, "num_workers": 0} | options
    return LesionData(root, split or Stratified(), **options)


def change(root, **columns):
    """Replace columns of the table, or drop those that are None."""
    table = pd.read_csv(root / "table.csv", dtype=str)
    for name, values in columns.items():
        table = table.drop(columns=name) if values is None else table.assign(**{name: values})
    table.to_csv(root / "table.csv", index=False)


def refusal(root):
    with pytest.raises(DataError) as caught:
        _ = data(root).table
    return str(caught.value)


def test_a_table_gives_images_labels_and_groups(root):
    module = data(root, mask=True)
    assert module.class_names == tuple(DISEASES)
    table = module.table
    assert table["image_id"].tolist()[:3] == ["0000", "0001", "0002"]
    assert table.groupby("lesion_id")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "val", "test"}
    module.prepare_data()
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (8, 3, 16, 16)
    assert batch["mask"].mean().item() == pytest.approx(12 * 16 / (24 * 32), abs=0.02)
    shown = [table.loc[i, "dx"] for i in batch["index"].tolist()]
    assert [DISEASES[c] for c in batch["label"].tolist()] == shown


@pytest.mark.parametrize("split", [Stratified(), KFold(3), Balanced(4, 2)])
def test_no_patient_is_in_two_splits(root, split):
    table = data(root, split).table
    assert table.groupby("lesion_id")["split"].nunique().max() == 1


@pytest.fixture
def shared_patients(root):
    """A table in which a patient has both diseases."""
    describe(root, classes=["psoriasis", "eczema"])
    table = pd.read_csv(root / "table.csv", dtype=str)
    table = table[table["diagnosis"] != "acne"]
    table.assign(patient=table["patient"].where(table.index % 7 > 0, "eczema-2")).to_csv(
        root / "table.csv", index=False
    )
    return root


@pytest.mark.parametrize("split", [Stratified(0.2, 0.2), KFold(3), Balanced(3, 2)])
def test_a_patient_of_several_classes_is_not_separated(shared_patients, split):
    table = data(shared_patients, split).table
    assert table.groupby("lesion_id")["dx"].nunique().max() == 2
    assert table.groupby("lesion_id")["split"].nunique().max() == 1


def test_a_balanced_test_split_has_no_patient_of_several_classes(shared_patients):
    table = data(shared_patients, Balanced(3, 2)).table
    mixed = table.groupby("lesion_id")["dx"].transform("nunique") > 1
    assert set(table.loc[mixed, "split"]) == {"train"}
    tested = table.loc[table["split"] == "test", "dx"]
    assert tested.value_counts().to_dict() == {"psoriasis": 3, "eczema": 3}


def test_images_without_groups_are_groups_of_their_own(root, capsys):
    change(root, patient=None)
    module = data(root)
    assert (module.table["lesion_id"] == module.table["image_id"]).all()
    module.prepare_data()
    assert "images have no lesion_id" in capsys.readouterr().out


def test_the_split_of_the_table(root):
    parts = ["train"] * 40 + ["val"] * 2 + ["test"] * 25
    table = pd.read_csv(root / "table.csv", dtype=str)
    change(root, patient=None, split=parts[: len(table)] + [""] * (len(table) - len(parts)))
    assert data(root, Official()).table["split"].value_counts()["test"] == 25
    # Without validation images, some of the training lesions of each class become them.
    change(root, split=[("train", "train", "test")[i % 3] for i in range(len(table))])
    found = data(root, Official(val_fraction=0.2)).table
    assert set(found.loc[found["split"] == "val", "dx"]) == set(DISEASES)
    assert (found["split"] == "test").sum() == len(table) // 3


def test_a_split_that_separates_a_patient_is_refused(root):
    table = pd.read_csv(root / "table.csv", dtype=str)
    change(root, split=["train", "val", "test"][:1] * (len(table) - 1) + ["test"])
    change(root, patient=["one"] * len(table))
    with pytest.raises(DataError, match="separates the images of 1 lesions, one the first"):
        _ = data(root, Official()).table


def test_all_mistakes_of_a_table_are_in_one_report(root):
    table = pd.read_csv(root / "table.csv", dtype=str)
    files, labels = table["file"].tolist(), table["diagnosis"].tolist()
    files[3], labels[4], files[6], files[8], labels[9] = "lost", "scabies", "0005", "0007", None
    labels[5], labels[6] = "psoriasis", "eczema"
    change(root, file=files, diagnosis=labels, split=["later", *["train"] * (len(files) - 1)])
    said = refusal(root)
    for part in (
        "1 row has no image or no label: 11",
        "not one of psoriasis, eczema, acne: scabies (0004)",
        "two labels for one image: 0005 (eczema, psoriasis)",
        "an image that has another row: 0007",
        "an image without a file: lost",
        "a split other than train, val and test: 0000 (later)",
    ):
        assert part in said, said


def test_a_missing_column_is_named_with_its_remedy(root):
    describe(root, classes=DISEASES, columns={"image": "file"})
    said = refusal(root)
    assert "no column label, only file, diagnosis" in said
    assert "`columns: {label: NAME}`" in said
    describe(root, classes=DISEASES, group="lesion")
    assert "no column lesion" in refusal(root)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no `classes`"),
        ({"classes": ["one"]}, "at least two"),
        ({"classes": ["a", "a"]}, "lists a class twice"),
        ({"classes": ["plaque psoriasis", "acne"]}, "needs a code without spaces"),
        ({"classes": DISEASES, "shots": {"many": ["acne"]}}, "`shots` is"),
        ({"classes": DISEASES, "shots": {"many": 1, "few": 5}}, "`shots` is"),
        ({"classes": DISEASES, "tasks": {"x": ["acne", "pox"]}}, "`tasks` names 'pox'"),
        ({"classes": DISEASES, "taxonomy": {"a": ["acne"]}}, "each class once"),
        ({"classes": DISEASES, "taxonomy": {"a": "acne"}}, "a branch of `taxonomy`"),
        ({"classes": DISEASES, "clases": 1}, "unknown key 'clases'"),
        ({"classes": {"a": 3, "b": "B"}}, "describes the class a by 3"),
        ({"classes": DISEASES, "table": "other.csv"}, "There is no table"),
        ({"classes": DISEASES, "images": "photos"}, "There is no folder"),
        ({"classes": DISEASES, "columns": "x"}, "`columns` is 'x'"),
        ({"classes": DISEASES, "images": 5}, "`images` is 5: give a name"),
        ({"classes": DISEASES, "masks": ["a"]}, "`masks` is ['a']: give a name"),
        ({"classes": DISEASES, "masks": "later"}, "mine/later: correct `masks`"),
        ({"classes": DISEASES, "table": {"a": 1}}, "`table` is {'a': 1}: give a name"),
        ({"classes": DISEASES, "group": True}, "`group` is True: give a name"),
        ({"classes": DISEASES, "shots": [1, 2]}, "`shots` is [1, 2]: give each group a name"),
        ({"classes": DISEASES, "shots": {"many": True, "few": False}}, "`shots` is"),
        ({"classes": DISEASES, "tasks": ["a", "b"]}, "`tasks` is ['a', 'b']: give each group"),
        ({"classes": DISEASES, "tasks": {"x": 1}}, "the task x of `tasks` is 1: list two or more"),
        ({"classes": DISEASES, "tasks": {"x": ["acne"]}}, "list two or more different"),
        ({"classes": [True, False]}, "reads the class True as a value"),
    ],
)
def test_mistakes_of_the_yaml_file(root, options, said):
    describe(root, **options)
    assert said in refusal(root)


def test_shot_groups_by_number_of_training_images(root):
    describe(root, classes=DISEASES, shots={"many": 20, "few": 10})
    module = data(root)
    counts = module.class_table["train"]
    assert module.shots == {
        "many": [c for c in DISEASES if counts[c] > 20],
        "medium": [c for c in DISEASES if 10 <= counts[c] <= 20],
        "few": [c for c in DISEASES if counts[c] < 10],
    }


def test_tasks_are_subsets_of_the_classes(root):
    describe(root, classes=DISEASES, tasks={"red": ["acne", "psoriasis"]})
    module = data(root, task="red")
    assert module.class_names == ("acne", "psoriasis")
    assert set(module.table["dx"]) == {"acne", "psoriasis"}
    with pytest.raises(DataError, match="choose one of diagnosis, red"):
        _ = data(root, task="blue").class_names


def test_parquet_is_read_like_csv(root):
    table = data(root).table
    pd.read_csv(root / "table.csv", dtype={"file": str}).to_parquet(root / "table.parquet")
    (root / "table.csv").unlink()
    pd.testing.assert_frame_equal(data(root).table, table)


def test_a_file_without_a_row_is_reported(root, capsys):
    change(root, file=pd.read_csv(root / "table.csv", dtype=str)["file"])
    table = pd.read_csv(root / "table.csv", dtype=str)
    table.iloc[:-1].to_csv(root / "table.csv", index=False)
    data(root).prepare_data()
    assert f"table.csv has no row for them: {table['file'].iloc[-1]}.png" in capsys.readouterr().out


def test_only_images_are_reported_as_left_out(root, capsys):
    describe(root, classes=DISEASES, images=".")
    files = pd.read_csv(root / "table.csv", dtype=str)["file"]
    change(root, file="pictures/" + files, mask=files)
    for _ in range(2):  # the second time with the cache
        data(root, mask=True).prepare_data()
    assert "left out" not in capsys.readouterr().out


def test_the_classes_can_be_written_and_read_back(root):
    describe(root, classes=DISEASES, shots={"many": 20, "few": 10}, tasks={"red": DISEASES[:2]})
    classes = data(root).classes
    assert type(classes).parse(yaml.safe_load(yaml.safe_dump(classes.record())), "x") == classes


def test_boxes_are_masks_where_there_is_no_file(root):
    (root / "masks" / "0001.png").unlink()
    (root / "masks" / "0003.png").unlink()
    image = Image.open(root / "pictures" / "0003.png")
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    image.save(root / "pictures" / "0003.png", exif=exif)
    table = pd.read_csv(root / "table.csv", dtype=str)
    boxes = ["9 9 9 9", "8, 6, 16, 12", None, "[0 16 24 16.0]", *[None] * (len(table) - 4)]
    change(root, box=boxes)
    module = data(root, mask=True)
    module.prepare_data()
    batch = module.gather(range(4))
    share = batch["mask"].mean((1, 2, 3))
    assert share == pytest.approx([0.25, 0.25, 0.25, 0.5])  # the file of 0000 has priority
    torch.testing.assert_close(batch["mask"][1], batch["mask"][0])
    assert batch["mask"][3, 0, :8].max() == 0  # the lower half of the upright image
    served = module._arrays("table")["mask"][:4] / 255
    np.testing.assert_allclose(served, batch["mask"][:, 0], atol=1e-6)
    before = set(root.glob("cache/mask-*"))
    change(root, box=[boxes[0], "0 0 4 4", *boxes[2:]])
    data(root, mask=True).prepare_data()
    assert set(root.glob("cache/mask-*")) > before  # another box is another mask


def test_bad_boxes_are_named(root):
    bad = ["a b c d", "1 2 3", "inf 0 5 5", "0 0 0.3 0.3", "20 0 13 10", "0 0 32 24"]
    bad += ["-1 0 5 5"]
    change(root, box=bad + [None] * (len(pd.read_csv(root / "table.csv")) - len(bad)))
    told = refusal(root)
    assert "6 rows have a bad box: 0000 (a b c d is not x y width height in pixels)" in told
    assert "0002 (inf 0 5 5 is not" in told
    assert "0003 (0 0 0.3 0.3 is not" in told
    assert "0004 (20 0 13 10 ends outside of the image)" in told
    assert "0005" not in told
