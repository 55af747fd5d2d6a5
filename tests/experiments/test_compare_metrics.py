import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from experiments.compare.metrics import (
    auroc,
    average_precision,
    calibration_error,
    scores,
    set_scores,
)
from experiments.compare.runs import read_run

BINARY = ["nv", "mel"]
MEASURES = {"brier", "nll", "ece", "classwise_ece", "aurc"}


def of(run, weight):
    return scores(run.probability.argmax(1), run.label, weight, run.classes, run.probability)


@pytest.mark.parametrize("classes", [None, BINARY])
def test_equals_what_the_runs_recorded(make_run, classes):
    run = read_run(make_run(**({"classes": classes} if classes else {})))
    found = of(run, np.ones((1, 90)))
    shared = found.keys() & run.metrics.keys()
    assert len(shared) >= 5 + 3 * len(run.classes)
    assert MEASURES | {"macro_auroc", "balanced_accuracy"} <= shared
    for name in shared:
        assert found[name] == pytest.approx(run.metrics[name], abs=1e-6), name


def test_equals_sklearn(make_run):
    run = read_run(make_run(classes=BINARY))
    found, label, p = of(run, np.ones((1, 90))), run.label, run.probability
    decided = p.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(label, decided),
        "balanced_accuracy": sk.balanced_accuracy_score(label, decided),
        "macro_f1": sk.f1_score(label, decided, average="macro"),
        "macro_auroc": sk.roc_auc_score(label, p[:, 1]),
        "average_precision": sk.average_precision_score(label, p[:, 1]),
        "sensitivity": sk.recall_score(label, decided, pos_label=1),
        "specificity": sk.recall_score(label, decided, pos_label=0),
        "ppv": sk.precision_score(label, decided, pos_label=1),
        "npv": sk.precision_score(label, decided, pos_label=0),
        "recall_mel": sk.recall_score(label, decided, pos_label=1),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_weight_of_n_is_n_images(make_run):
    run = read_run(make_run())
    weight = np.random.default_rng(0).integers(0, 4, size=(3, 90)).astype(np.float32)
    found = of(run, weight)
    for r, counts in enumerate(weight.astype(int)):
        rows = np.repeat(np.arange(90), counts)
        label, p = run.label[rows], run.probability[rows]
        repeated = scores(p.argmax(1), label, np.ones((1, len(rows))), run.classes, p)
        for name, values in found.items():
            assert values[r] == pytest.approx(repeated[name][0], abs=1e-5), name


def test_ranking_with_ties_equals_sklearn():
    draw = np.random.default_rng(0)
    score, positive = draw.integers(5, size=60) / 5, draw.random(60) < 0.4
    weight = draw.integers(1, 4, size=(2, 60)).astype(float)
    for r, counts in enumerate(weight):
        expected = sk.roc_auc_score(positive, score, sample_weight=counts)
        assert auroc(score, positive, weight)[r] == pytest.approx(expected)
        expected = sk.average_precision_score(positive, score, sample_weight=counts)
        assert average_precision(score, positive, weight)[r] == pytest.approx(expected)


def test_a_probability_of_0_has_a_likelihood(make_run):
    run = read_run(make_run())
    certain = np.eye(7, dtype=np.float32)[(run.label + 1) % 7]
    found = scores(certain.argmax(1), run.label, np.ones((1, 90)), run.classes, certain)
    assert found["nll"] == pytest.approx(-np.log(1e-30))
    assert found["brier"] == 2


def test_sets_are_counted_by_image_and_class():
    label = np.array([0, 0, 1, 1, 1])
    sets = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]], dtype=bool)
    weight = np.array([[1, 1, 1, 1, 1], [2, 0, 0, 3, 1]], dtype=np.float32)
    found = set_scores(sets, label, weight, ["a", "b", "c"])
    for r, counts in enumerate(weight.astype(int)):
        drawn = np.repeat(np.arange(5), counts)
        covered = [sets[i, label[i]] for i in drawn]
        assert found["coverage"][r] == pytest.approx(np.mean(covered))
        assert found["set_size"][r] == pytest.approx(np.mean([sets[i].sum() for i in drawn]))
        for c, name in enumerate("ab"):
            of_class = [sets[i, c] for i in drawn if label[i] == c]
            assert found[f"coverage_{name}"][r] == pytest.approx(np.mean(of_class))
    assert np.isnan(found["coverage_c"]).all()


def test_certainty_has_a_bin_of_its_own():
    probability = np.array([[1.0, 0.0], [0.95, 0.05]], dtype=np.float32)
    label = np.array([1, 0])
    expected = multiclass_calibration_error(torch.tensor(probability), torch.tensor(label), 2)
    found = calibration_error(probability, label, np.ones((1, 2)))
    assert found == pytest.approx(expected.item()) == pytest.approx((1 + 0.05) / 2)


def test_a_decision_has_no_probabilities_to_rank(make_run):
    run = read_run(make_run(decide=True))
    found = scores(run.decision, run.label, np.ones((1, 90)), run.classes)
    assert found["recall_mel"] == 1
    assert found["balanced_accuracy"] == pytest.approx(1 / 7)
    assert not (MEASURES | {"macro_auroc"}) & found.keys()


def test_natural_accuracy_is_that_of_images_as_frequent_as_in_the_data(make_run):
    """Equals accuracy on a split that repeats each class by its frequency in the data set."""
    run = read_run(make_run())
    frequency = np.array([3, 9, 1, 1, 2, 1, 1])
    per_class = np.bincount(run.label, minlength=7)
    weight = (frequency / per_class)[run.label][None]
    prediction = run.probability.argmax(1)
    repeated = scores(prediction, run.label, weight * 1000, run.classes)["accuracy"]
    even = np.ones_like(weight)
    found = scores(prediction, run.label, even, run.classes, frequency=frequency)
    assert np.allclose(found["natural_accuracy"], repeated)
