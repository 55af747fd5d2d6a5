from dataclasses import replace

import numpy as np
import pytest

from experiments.compare.comparison import compare
from experiments.compare.runs import read_run
from experiments.compare.subgroups import group_scores, groups


@pytest.fixture
def comparison(make_run):
    return compare([read_run(make_run(seed=s, images=300, skill=2.0)) for s in range(2)], 200)


def test_every_image_is_in_one_group_of_each_kind(comparison):
    found = groups(comparison.rows[0])
    for kind in ("age", "sex", "body site", "diagnosis method"):
        of_kind = [group for group in found if group.kind == kind]
        assert (np.sum([group.where for group in of_kind], axis=0) == 1).all(), kind
        assert sum(group.images for group in of_kind) == 300
    ages = [group.name for group in found if group.kind == "age"]
    assert ages == ["under 40", "40 to 60", "over 60", "unknown"]


def test_bands_of_age_meet_at_40_and_60(comparison):
    run = comparison.rows[0].runs[0]
    years = [39.0, 40.0, 60.0, 61.0, np.nan] * 60
    row = replace(
        comparison.rows[0], runs=(replace(run, predictions=run.predictions.assign(age=years)),)
    )
    ages = [group for group in groups(row) if group.kind == "age"]
    assert [np.flatnonzero(group.where)[:3].tolist() for group in ages] == [
        [0, 5, 10],
        [1, 2, 6],
        [3, 8, 13],
        [4, 9, 14],
    ]


def test_scores_of_a_group_are_those_of_its_images_alone(comparison):
    row = comparison.rows[0]
    group = next(group for group in groups(row) if group.name == "female")
    found = group_scores(row, group, comparison.weight)
    alone = [
        replace(run, predictions=run.predictions[group.where].reset_index(drop=True))
        for run in row.runs
    ]
    expected = compare(alone, 5).rows[0].metrics
    assert found.balanced_accuracy[0] == pytest.approx(expected["balanced_accuracy"].mean)
    assert found.recall["mel"][0] == pytest.approx(expected["recall_mel"].mean)
    low, high = found.balanced_accuracy[1]
    assert low < found.balanced_accuracy[0] < high


def test_absent_classes_are_named_and_have_no_recall(comparison):
    row = comparison.rows[0]
    group = next(group for group in groups(row) if group.name == "unknown")  # only mel, as drawn
    assert set(group.lacking) == set(comparison.classes) - {"mel"}
    found = group_scores(row, group, comparison.weight)
    assert list(found.recall) == ["mel"]
    assert found.recall["mel"] == found.balanced_accuracy


def test_a_lesion_alone_has_no_interval(comparison):
    row = comparison.rows[0]
    group = groups(row)[0]
    single = replace(group, where=np.arange(300) == 0, images=1, lesions=1)
    value, interval = group_scores(row, single, comparison.weight).balanced_accuracy
    assert value in (0, 0.5, 1)
    assert interval is None


def test_older_runs_know_nothing_of_their_images(make_run):
    run = read_run(make_run())
    run = replace(
        run, predictions=run.predictions.drop(columns=["age", "sex", "localization", "dx_type"])
    )
    assert groups(compare([run], 5).rows[0]) == []
