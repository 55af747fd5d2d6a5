import hashlib

import numpy as np
import pandas as pd
import pytest

from datamodules.errors import DataError
from datamodules.layout import METADATA
from datamodules.metadata import SAME_LESION, read_table
from datamodules.splits import Balanced, KFold, Official, Stratified

SPLITS = [Balanced(8, 4), Stratified(), *(KFold(4, fold) for fold in range(4))]


@pytest.fixture
def table() -> pd.DataFrame:
    """Three classes with 60, 30 and 20 lesions of one to three images each."""
    rows = [
        {"lesion_id": f"{dx}{lesion}", "image_id": f"{dx}{lesion}-{image}", "dx": dx}
        for dx, lesions in {"nv": 60, "mel": 30, "df": 20}.items()
        for lesion in range(lesions)
        for image in range(1 + lesion % 3)
    ]
    return pd.DataFrame(rows).assign(source="ham10000")


@pytest.mark.parametrize("split", SPLITS)
def test_no_lesion_is_in_two_splits_and_no_image_in_none(table, split):
    splits = split(table)
    assert set(splits) == {"train", "val", "test"}
    assert (splits.groupby(table["lesion_id"]).nunique() == 1).all()
    assert (pd.crosstab(table["dx"], splits) > 0).all(axis=None)


@pytest.fixture
def pairs() -> list[tuple[str, str]]:
    """Images of HAM10000 that show one lesion under two ids."""
    return list(pd.read_csv(SAME_LESION, comment="#").itertuples(index=False, name=None))


@pytest.fixture
def with_pairs(tmp_path, pairs) -> pd.DataFrame:
    """Lesions of one image each, of which those in ``pairs`` have two ids in the metadata."""
    images = [*(image for pair in pairs for image in pair), *map(str, range(24))]
    rows = [(f"HAM_{i * 37 % 61}", image, "nv") for i, image in enumerate(images)]
    table = pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])
    table.to_csv(tmp_path / METADATA, index=False)
    return read_table(tmp_path)


@pytest.mark.parametrize(
    "split",
    [
        *(Balanced(20, 10, seed) for seed in range(5)),
        *(Stratified(seed=seed) for seed in range(3)),
        *(KFold(5, fold) for fold in range(5)),
    ],
)
def test_images_of_one_lesion_with_two_ids_are_in_one_split(with_pairs, pairs, split):
    assert len(pairs) == 18
    split_of = dict(zip(with_pairs["image_id"], split(with_pairs), strict=True))
    assert set(split_of.values()) == {"train", "val", "test"}
    assert [pair for pair in pairs if split_of[pair[0]] != split_of[pair[1]]] == []


@pytest.mark.parametrize("split", SPLITS)
def test_split_does_not_depend_on_the_order_of_the_table(table, split):
    shuffled = table.sample(frac=1, random_state=0)
    assert split(shuffled).sort_index().equals(split(table))


def test_split_is_the_same_on_every_machine(table):
    test = table.loc[Balanced(2, 2)(table) == "test", "image_id"]
    assert sorted(test) == ["df1-0", "df1-1", "mel21-0", "mel6-0", "nv4-0", "nv4-1"]


def test_another_seed_is_another_split(table):
    assert not Balanced(8, 4, seed=1)(table).equals(Balanced(8, 4, seed=0)(table))


def test_balanced_meets_its_numbers_exactly(table):
    counts = pd.crosstab(table["dx"], Balanced(8, 4)(table))
    assert (counts["test"] == 8).all()
    assert (counts["val"] == 4).all()


def test_balanced_refuses_what_is_impossible(table):
    with pytest.raises(DataError, match="40 test images of df .* 20 lesions with 39 images"):
        Balanced(40, 4)(table)
    with pytest.raises(DataError, match="test_images"):
        Balanced(39, 0)(table)  # nothing would be left for training


def test_balanced_says_that_whole_lesions_do_not_add_up():
    """An odd number of images cannot be chosen from lesions of two images each."""
    lesions = [f"HAM_{number // 2}" for number in range(8)]
    table = pd.DataFrame({"lesion_id": lesions, "dx": "bcc", "source": "ham10000"})
    message = r"exactly 3 test images of bcc.*the 4 available lesions have 2 images each.*such as 2"
    with pytest.raises(DataError, match=message):
        Balanced(3, 1)(table)
    with pytest.raises(DataError, match=r"exactly 1 val images.*data.split.val_images, such as 2"):
        Balanced(2, 1)(table)
    assert Balanced(2, 2)(table).value_counts().to_dict() == {"train": 4, "test": 2, "val": 2}


@pytest.mark.parametrize("numbers", [(0, 4), (4, 0), (-1, 4), (4, -3)])
def test_balanced_refuses_numbers_below_one(numbers):
    with pytest.raises(DataError, match="at least 1"):
        Balanced(*numbers)


@pytest.mark.parametrize(
    "fractions", [(0, 0.2), (0.1, -1), (0.5, 0.5), (2, 0.1), (float("nan"), 0.1)]
)
def test_stratified_refuses_fractions_that_are_none(fractions):
    with pytest.raises(DataError, match="sum below 1"):
        Stratified(*fractions)


def test_stratified_takes_the_fractions_of_the_lesions(table):
    lesions = table.drop_duplicates("lesion_id")
    counts = pd.crosstab(lesions["dx"], Stratified(0.1, 0.2)(table)[lesions.index])
    assert counts.loc["nv"].to_dict() == {"test": 12, "train": 42, "val": 6}
    assert counts.loc["df"].to_dict() == {"test": 4, "train": 14, "val": 2}


def test_stratified_refuses_an_empty_split(table):
    with pytest.raises(DataError, match="without df, which has 20 lesions"):
        Stratified(val_fraction=0.01)(table)


def test_every_lesion_tests_in_exactly_one_fold(table):
    tests = sum((KFold(4, fold)(table) == "test").astype(int) for fold in range(4))
    assert (tests == 1).all()


def test_kfold_refuses_impossible_folds(table):
    with pytest.raises(DataError, match="fold=5"):
        KFold(5, 5)
    with pytest.raises(DataError, match="too few for 21 folds"):
        KFold(21, 0)(table)


def test_official_needs_and_uses_the_official_sets(table):
    with pytest.raises(DataError, match="not installed"):
        Official()(table)
    official = table.assign(
        source=["ham10000", "val", "test"] * (len(table) // 3) + ["val"] * (len(table) % 3)
    )
    assert (Official()(official) == official["source"].replace({"ham10000": "train"})).all()
    assert set(Balanced(2, 2)(official)[official["source"] != "ham10000"]) == {""}


def test_lesions_are_taken_in_the_order_of_their_hashes():
    draws = np.random.default_rng(0)
    lesions = [f"HAM_{number}" for number in draws.integers(0, 90, 200)]
    dx = draws.choice(["nv", "mel", "df"], 200, p=[0.6, 0.3, 0.1])  # several in one group
    table = pd.DataFrame({"lesion_id": lesions, "dx": dx, "source": "table"})
    rarity = ["df", "mel", "nv"]
    expected = {}
    for name in rarity:
        group = {
            lesion
            for lesion, rows in table.groupby("lesion_id")
            if min(rows["dx"], key=rarity.index) == name
        }
        for i, lesion in enumerate(
            sorted(group, key=lambda lesion: hashlib.sha256(f"3/{lesion}".encode()).digest())
        ):
            expected[lesion] = {1: "test", 2: "val"}.get(i % 4, "train")
    assert KFold(4, 1, seed=3)(table).tolist() == [expected[lesion] for lesion in lesions]
