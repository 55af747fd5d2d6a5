from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve

from experiments.compare import curves
from experiments.compare.comparison import compare
from experiments.compare.intervals import lesion_weights
from experiments.compare.metrics import CALIBRATION_BINS, calibration_error
from experiments.compare.net_benefit import treat_all
from experiments.compare.runs import read_run


@pytest.fixture
def row(make_run):
    return compare([read_run(make_run(seed=s)) for s in range(2)], 5).rows[0]


def test_learning_is_mean_and_range_over_seeds(row):
    found = curves.learning(row.runs, "train/loss")
    assert found["epoch"].tolist() == [1, 2, 3]
    assert found["low"].tolist() == pytest.approx([2.0, 1.5, 1.0])
    assert found["high"].tolist() == pytest.approx([2.1, 1.6, 1.1])
    assert found["mean"].tolist() == pytest.approx([2.05, 1.55, 1.05])
    assert curves.learning(row.runs, "val/none").empty


def test_what_is_validated_after_training_is_no_epoch(row):
    run = row.runs[0]
    later = pd.DataFrame([{"step": 0, "epoch": 0, "kind": "val", "val/balanced_accuracy": 0.9}])
    run = replace(run, history=pd.concat([later, run.history]))
    assert curves.learning([run], "val/balanced_accuracy")["mean"][0] == pytest.approx(0.2)


def test_long_curves_are_thinned_and_keep_their_ends(row):
    long = pd.DataFrame({"step": range(5000), "epoch": range(5000), "train/loss": range(5000)})
    found = curves.learning([replace(row.runs[0], history=long)], "train/loss")
    assert len(found) == curves.MAX_POINTS
    assert found["epoch"].iloc[[0, -1]].tolist() == [1, 5000]


def test_precision_is_that_of_the_threshold_that_reaches_the_recall(row):
    run, found = row.runs[0], curves.precision_recall(replace(row, runs=row.runs[:1]), 2)
    precision, recall, _ = precision_recall_curve(run.label == 2, run.probability[:, 2])
    for level, value in zip(curves.RECALL_LEVELS[1:], found[1:], strict=True):
        at = np.flatnonzero(recall >= level - 1e-9)[-1]
        assert value == pytest.approx(precision[at])


def test_precision_of_ties():
    assert curves._precision_at(np.ones(4), np.array([1, 0, 0, 0], bool)) == pytest.approx(0.25)


def test_reliability_equals_sklearn(row):
    label = np.concatenate([run.label for run in row.runs])
    said = np.concatenate([run.probability[:, 0] for run in row.runs])
    found, mean = calibration_curve(label == 0, said, n_bins=CALIBRATION_BINS)
    table = curves.reliability(row, 0)
    assert table["observed"].to_numpy() == pytest.approx(found)
    assert table["predicted"].to_numpy() == pytest.approx(mean)
    assert table["images"].sum() == 180
    likeliest = curves.reliability(row, None)
    right = (likeliest["observed"] * likeliest["images"]).sum() / 180
    assert right == pytest.approx(row.metrics["accuracy"].mean)


def test_the_gaps_of_the_reliability_diagram_are_the_ece(row):
    one = replace(row, runs=row.runs[:1])
    bins = curves.reliability(one, None)
    gaps = (bins["images"] * (bins["observed"] - bins["predicted"]).abs()).sum()
    expected = calibration_error(one.runs[0].probability, one.runs[0].label, np.ones((1, 90)))
    assert gaps / 90 == pytest.approx(expected[0], abs=1e-6)


def test_certainty_has_a_bin_of_its_own(row):
    run = row.runs[0]
    said = np.full(90, 0.15)
    said[:2] = 1.0, 0.95
    one = replace(row, runs=(replace(run, predictions=run.predictions.assign(p_mel=said)),))
    assert curves.reliability(one, 0)["images"].tolist() == [88, 1, 1]


def test_confusion_is_the_mean_over_seeds(row):
    found = curves.mean_confusion(row)
    assert found.sum() == pytest.approx(90)
    assert found.diagonal().sum() / 90 == pytest.approx(row.metrics["accuracy"].mean)


def test_risk_and_its_interval_are_of_the_mean_over_seeds(row):
    weight = lesion_weights(row.runs[0].lesion, row.runs[0].label, 40)
    found = curves.risk_coverage(row, weight)
    assert found["coverage"].iloc[-1] == 1
    assert found["mean"].iloc[-1] == pytest.approx(1 - row.metrics["accuracy"].mean)
    errors = 1 - row.scores(weight)["accuracy"].mean(0)
    ends = np.quantile(errors, [0.025, 0.975])
    assert found[["low", "high"]].iloc[-1].to_numpy() == pytest.approx(ends, abs=1e-6)
    assert curves.risk_coverage(row, weight[:0])["low"].isna().all()


@pytest.mark.parametrize("corrected", [False, True])
def test_net_benefit_by_its_definition(row, corrected):
    """In a population of 10 % melanoma and as many of every other class, in loops."""
    label, frequency = row.runs[0].label, np.array([6, 9, 9, 9, 9, 9, 9])
    row = replace(row, runs=tuple(replace(run, frequency=frequency) for run in row.runs))
    share = frequency / frequency.sum()
    per_class = np.bincount(label)
    found = curves.decision_curve(row, np.ones((0, 90)), 0, corrected).set_index("threshold")
    for t in (0.05, 0.1, 0.3):
        benefit = []
        for run in row.runs:
            total = 0.0
            for i in range(90):
                p = run.probability[i].astype(float)
                p = p * share / (p @ share) if corrected else p
                image = share[label[i]] / per_class[label[i]]
                if p[0] >= t:
                    total += image if label[i] == 0 else -image * t / (1 - t)
            benefit.append(total)
        assert found.loc[t, "mean"] == pytest.approx(np.mean(benefit))


def test_a_decision_is_treated_at_any_threshold(make_run):
    decided = compare([read_run(make_run(decide=True))], 5).rows[-1]
    weight = np.ones((3, 90))
    share = curves.population(decided.runs[0])
    found = curves.decision_curve(decided, weight, 0, corrected=False)  # all decided for class 0
    assert found["mean"].to_numpy() == pytest.approx(treat_all(share, 0))
    assert found["low"].to_numpy() == pytest.approx(found["high"].to_numpy())


def test_the_mean_probability_of_a_calibrated_row_is_the_share_of_the_class(row):
    run, frequency = row.runs[0], np.array([2, 50, 1, 1, 1, 1, 4])
    share = frequency / frequency.sum()
    constant = run.predictions.assign(**{f"p_{c}": share[k] for k, c in enumerate(run.classes)})
    run = replace(run, predictions=constant, frequency=frequency)
    assert curves.mean_probability(replace(row, runs=(run,)), 0, False) == pytest.approx(2 / 60)
    even = replace(run, predictions=constant.assign(**{f"p_{c}": 1 / 7 for c in run.classes}))
    found = curves.mean_probability(replace(row, runs=(even,)), 0, True)
    assert found == pytest.approx(2 / 60)


def test_rounded_counts_keep_the_sum_of_a_row():
    thirds = np.array([[40 / 3, 40 / 3, 40 / 3], [39.5, 0.5, 0.0], [1 / 6, 5 / 6, 39.0]])
    found = curves.rounded_rows(thirds)
    assert found.sum(1) == pytest.approx([40, 40, 40])
    assert (np.abs(found - thirds) < 0.1).all()
    assert found[1].tolist() == [39.5, 0.5, 0.0]
    assert found.tolist() == np.round(found, 1).tolist()
