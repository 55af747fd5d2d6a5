import numpy as np
import pytest

from callbacks.errors import RunError
from experiments.compare.net_benefit import (
    THRESHOLDS,
    class_shares,
    for_shares,
    net_benefit,
    positive_class,
    treat_all,
)

LABEL = np.array([0] * 5 + [1] * 10 + [2] * 15)


def test_net_benefit_is_that_of_vickers_and_elkin():
    """TP/n - FP/n t/(1 - t), counted in images whose classes are as frequent as the population."""
    draw = np.random.default_rng(0)
    probability = draw.random(30)
    weight = draw.integers(1, 4, size=(4, 30)).astype(np.float32)
    for r, counts in enumerate(weight.astype(int)):
        rows = np.repeat(np.arange(30), counts)
        drawn = LABEL[rows]
        share = np.bincount(drawn) / len(drawn)
        treated = probability[:, None] >= THRESHOLDS
        found = net_benefit(treated, LABEL, weight, share, positive=1)[r]
        for t, value in zip(THRESHOLDS, found, strict=True):
            true = sum(drawn[i] == 1 for i, p in enumerate(probability[rows]) if p >= t)
            false = sum(drawn[i] != 1 for i, p in enumerate(probability[rows]) if p >= t)
            assert value == pytest.approx((true - false * t / (1 - t)) / len(rows), abs=1e-6)


def test_a_class_counts_by_its_share_of_the_population():
    """Equals the net benefit of images that are repeated until they have these shares."""
    share = np.array([0.1, 0.2, 0.7])
    repeats = (share / (np.bincount(LABEL) / 30) * 30).round().astype(int)[LABEL]
    repeated = np.repeat(np.arange(30), repeats)
    assert np.bincount(LABEL[repeated]) / len(repeated) == pytest.approx(share)
    treated = np.random.default_rng(1).random(30)[:, None] >= THRESHOLDS
    found = net_benefit(treated, LABEL, np.ones((1, 30)), share, positive=0)
    ones = np.ones((1, len(repeated)))
    expected = net_benefit(treated[repeated], LABEL[repeated], ones, share, positive=0)
    assert found == pytest.approx(expected)
    true, false = (treated[repeated][LABEL[repeated] == 0], treated[repeated][LABEL[repeated] > 0])
    odds = THRESHOLDS / (1 - THRESHOLDS)
    assert found[0] == pytest.approx((true.sum(0) - odds * false.sum(0)) / len(repeated))


def test_treating_all_none_or_the_positive_ones_has_its_known_benefit():
    share, everybody = np.array([0.2, 0.3, 0.5]), np.ones((30, len(THRESHOLDS)))
    weight = np.ones((2, 30))
    assert net_benefit(everybody, LABEL, weight, share, 1)[0] == pytest.approx(treat_all(share, 1))
    assert (net_benefit(0 * everybody, LABEL, weight, share, 1) == 0).all()
    right = net_benefit((LABEL == 1)[:, None] * everybody, LABEL, weight, share, 1)
    assert right == pytest.approx(np.full(right.shape, 0.3))
    at = THRESHOLDS.tolist().index(0.3)
    assert treat_all(share, 1)[at] == pytest.approx(0)  # where the threshold is the prevalence


def test_probabilities_of_even_classes_become_those_of_the_population():
    """The correction by Bayes' rule, on images drawn from known likelihoods."""
    likelihood = np.random.default_rng(2).random((6, 3))
    share = np.array([0.05, 0.15, 0.8])
    even = likelihood / likelihood.sum(1, keepdims=True)
    expected = [[likelihood[i, c] * share[c] for c in range(3)] for i in range(6)]
    expected = np.array(expected) / np.sum(expected, axis=1, keepdims=True)
    assert for_shares(even, share) == pytest.approx(expected)
    assert for_shares(even, np.full(3, 1 / 3)) == pytest.approx(even)
    assert (for_shares(np.eye(3), np.array([1, 0, 0])) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]).all()


def test_the_population_is_the_data_set_or_the_test_images():
    label = np.array([0, 0, 2, 2])
    assert class_shares(label, 3).tolist() == [0.5, 0, 0.5]
    assert class_shares(label, 3, np.array([30, 50, 10])).tolist() == [0.75, 0, 0.25]


def test_the_positive_class_is_melanoma_unless_named():
    assert positive_class(["nv", "mel", "bcc"]) == "mel"
    assert positive_class(["nv", "mel", "bcc"], "bcc") == "bcc"
    assert positive_class(["good", "bad"]) == "bad"
    assert positive_class(["a", "b", "c"]) is None
    with pytest.raises(RunError, match="no class 'mal': set --positive to one of nv, mel"):
        positive_class(["nv", "mel"], "mal")
