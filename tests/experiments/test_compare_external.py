"""Rows on other data sets, from invented predictions."""

import numpy as np
import pytest

from experiments.compare import other_tables, table
from experiments.compare.comparison import compare
from experiments.compare.external import with_external
from experiments.compare.intervals import lesion_weights
from experiments.compare.runs import read_run, read_runs
from tests.experiments.conftest import write_test


def mean_recall(run, classes, weight):
    """Balanced accuracy over some classes, by a plain loop."""
    predicted = run.probability.argmax(1)
    shares = []
    for c in classes:
        of_class = run.label == c
        shares.append(weight[of_class & (predicted == c)].sum() / weight[of_class].sum())
    return np.mean(shares)


def test_the_change_is_over_the_classes_of_the_other_data_set(make_run):
    for seed in range(2):
        write_test(make_run(seed=seed, skill=2.0), "clinic", absent=["df", "vasc"])
    comparison = with_external(compare(read_runs(["runs"])[0], 100))
    (test,) = comparison.external
    change = test.changes["ce"]
    own, other = comparison.rows[0].runs, test.comparison.rows[0].runs
    present = [c for c in range(7) if (other[0].label == c).any()]
    assert len(present) == 5
    for runs, found in ((own, change.own), (other, change.other)):
        values = [mean_recall(run, present, np.ones(len(run.label))) for run in runs]
        assert found.mean == pytest.approx(np.mean(values))
    weights = [lesion_weights(run[0].lesion, run[0].label, 100) for run in (own, other)]
    resampled = [
        np.mean([mean_recall(run, present, weights[1][r]) for run in other])
        - np.mean([mean_recall(run, present, weights[0][r]) for run in own])
        for r in range(100)
    ]
    bounds = np.quantile(resampled, [0.025, 0.975])
    assert change.difference.lesions == pytest.approx(bounds, abs=1e-5)
    assert change.difference.seeds is not None
    assert "recall_df" not in test.comparison.rows[0].metrics
    assert test.legend.startswith("clinic: ")
    assert "resamples of the patients. 3 images were left out." in test.legend
    line = other_tables.changes(test, "lesion").iloc[0]
    assert line["clinic [patients]"].startswith(f"{change.other.mean:.3f} [")


@pytest.mark.parametrize("group", ["patient", "image"])
def test_the_own_test_is_of_what_its_data_set_groups_by(make_run, group):
    write_test(make_run("ce", group=group), "clinic", group="lesion")
    make_run("other", group=group)
    comparison = with_external(compare(read_runs(["runs"])[0], 20, baseline="other"))
    text = table.markdown(comparison)
    assert f"resamples of the {group}s within each class" in text
    assert ("test images of" in text) == (group == "patient")
    assert f"| balanced accuracy [{group}s] |" in text
    assert f"| {group}s better : worse |" in text
    assert "lesion" not in text
    changes = other_tables.changes(comparison.external[0], comparison.group)
    assert {f"own test [{group}s]", "clinic [lesions]"} <= {*changes}
    assert [test.group for test in other_tables.subgroups(comparison)] == [group, "lesion"]


def test_rows_are_compared_over_the_seeds_that_were_tested(make_run):
    folders = [make_run(seed=seed, decide=True) for seed in range(3)]
    for folder in folders[:2]:
        write_test(folder, "clinic", decide=True)
    make_run("other")
    comparison = with_external(compare(read_runs(["runs"])[0], 20))
    (test,) = comparison.external
    assert {row.name: row.seeds for row in test.comparison.rows} == {
        "ce": [0, 1],
        "ce + decision": [0, 1],
    }
    runs = next(row.runs for row in comparison.rows if row.name == "ce")
    own = [mean_recall(run, range(7), np.ones(len(run.label))) for run in runs[:2]]
    assert test.changes["ce"].own.mean == pytest.approx(np.mean(own))
    lines = other_tables.external_numbers(comparison)
    assert lines["name"].tolist() == [row.name for row in test.comparison.rows]


def test_tests_that_cannot_be_compared_are_left_out_and_named(make_run):
    write_test(make_run("a"), "clinic", images=60)
    write_test(make_run("b"), "clinic", images=45)
    torn = write_test(make_run("c"), "torn")
    (torn / "test_predictions.csv").unlink()
    comparison = with_external(compare(read_runs(["runs"])[0], 20))
    assert comparison.external == ()
    notes = " ".join(comparison.notes)
    assert "cannot be compared because they have different test images" in notes
    assert "on/torn is incomplete" in notes
    assert "test the run on torn again" in notes


def test_a_test_of_other_weights_is_left_out(make_run):
    folder = make_run(checkpoint={"step": 20})
    write_test(folder, "clinic")
    assert len(with_external(compare([read_run(folder)], 5)).external) == 1
    file = folder / "results.json"
    file.write_text(file.read_text().replace('"step": 20', '"step": 40'))
    comparison = with_external(compare([read_run(folder)], 5))
    assert comparison.external == ()
    assert "is of the checkpoint of step 20, the own test of step 40" in comparison.notes[-1]


def test_without_known_groups_images_are_resampled_and_it_is_said(make_run):
    folder = make_run()
    write_test(folder, "clinic", group="image")
    (test,) = with_external(compare([read_run(folder)], 20)).external
    assert "resamples of the images, since the data set names neither lesions" in test.legend
