from dataclasses import replace

import numpy as np
import pytest

from experiments.compare import other_tables
from experiments.compare.comparison import compare
from experiments.compare.runs import read_run
from experiments.compare.subgroups import MIN_LESIONS, gaps, group_scores, groups


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


def balanced(row, where, classes, weight):
    """Mean recall of some classes by a plain loop over images, mean over the seeds."""
    per_seed = []
    for run, predicted in zip(row.runs, row.predictions, strict=True):
        recall = []
        for c in classes:
            images = [i for i in np.flatnonzero(where) if run.label[i] == c]
            total = sum(weight[i] for i in images)
            recall.append(sum(weight[i] for i in images if predicted[i] == c) / total)
        per_seed.append(np.mean(recall))
    return np.mean(per_seed)


def test_the_difference_from_the_rest_is_over_the_classes_of_both(comparison):
    row, weight = comparison.rows[0], comparison.weight
    group = next(group for group in groups(row) if group.name == "40 to 60")
    assert (group.rest == [name not in ("40 to 60", "unknown") for name in ages(row)]).all()
    found = group_scores(row, group, weight)
    classes = [comparison.classes.index(name) for name in found.shared]
    assert 0 not in classes  # only images of unknown age show mel, as drawn
    one = np.ones(300)
    inside, outside = (balanced(row, w, classes, one) for w in (group.where, group.rest))
    assert found.difference[0] == pytest.approx(inside - outside, abs=1e-6)
    low, high = found.difference[1]
    assert low < inside - outside < high
    resampled = [
        balanced(row, group.where, classes, w) - balanced(row, group.rest, classes, w)
        for w in weight[:3]
    ]
    alone = group_scores(row, group, weight[:3])
    assert alone.difference[1] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=1e-6)


def ages(row):
    bands = {group.name: group.where for group in groups(row) if group.kind == "age"}
    return [next(name for name, where in bands.items() if where[i]) for i in range(300)]


def test_unknown_values_have_no_rest(comparison):
    row = comparison.rows[0]
    group = next(group for group in groups(row) if group.name == "unknown")
    assert not group.rest.any()
    assert group_scores(row, group, comparison.weight).difference is None


def test_the_gap_is_between_the_best_and_the_worst_group(comparison):
    row = comparison.rows[0]
    found = {gap.kind: gap for gap in gaps(row, groups(row), comparison.weight)}
    assert set(found) == {"age", "sex", "body site"}  # one diagnosis method has no gap
    gap = found["body site"]
    classes = [comparison.classes.index(name) for name in gap.classes]
    scores = {
        group.name: balanced(row, group.where, classes, np.ones(300))
        for group in groups(row)
        if group.kind == "body site"
    }
    assert gap.best == max(scores, key=scores.get)
    assert gap.worst == min(scores, key=scores.get)
    assert gap.value[0] == pytest.approx(scores[gap.best] - scores[gap.worst], abs=1e-6)
    low, high = gap.value[1]
    assert low < gap.value[0] < high


def test_a_group_without_melanoma_has_no_auroc(comparison):
    row = comparison.rows[0]
    found = {group.name: group for group in groups(row)}
    assert group_scores(row, found["over 60"], comparison.weight, "mel").auroc is None
    group, run = found["female"], row.runs[0]
    value, (low, high) = group_scores(row, group, comparison.weight, "mel").auroc
    mean = []
    for run in row.runs:
        p, positive = run.probability[group.where, 0], run.label[group.where] == 0
        mean.append((p[positive][:, None] > p[~positive]).mean())
    assert value == pytest.approx(np.mean(mean))
    assert low < value < high


def test_skin_types_that_are_numbers_are_named_as_written(comparison):
    run = comparison.rows[0].runs[0]
    tones = [1.0, np.nan, 2.5] * 100
    row = replace(
        comparison.rows[0], runs=(replace(run, predictions=run.predictions.assign(tone=tones)),)
    )
    assert [group.name for group in groups(row) if group.kind == "skin tone"] == [
        "1",
        "2.5",
        "unknown",
    ]


def test_small_groups_are_counted_and_not_scored(comparison):
    run = comparison.rows[0].runs[0]
    sites = ["nail"] * (MIN_LESIONS // 2) + ["back"] * (300 - MIN_LESIONS // 2)
    other = replace(run, predictions=run.predictions.assign(localization=sites))
    (found,) = other_tables.subgroups(compare([other], 20))
    scores = dict(zip([g.name for g in found.groups], found.scores["ce"], strict=True))
    assert scores["nail"] is None
    assert scores["back"] is not None
    assert "body site" not in [gap.kind for gap in found.gaps["ce"]]
    table = other_tables.subgroup_numbers([found]).set_index("group")
    assert table.loc["nail", "images"] == MIN_LESIONS // 2
    assert np.isnan(table.loc["nail", "balanced_accuracy"])
    assert table.loc["back", "balanced_accuracy_low"] < table.loc["back", "balanced_accuracy"]
    gap = other_tables.gap_numbers([found]).set_index("kind").loc["sex"]
    assert {gap["best"], gap["worst"]} == {"female", "male"}
