import math

import numpy as np
import pytest
import torch
from scipy import stats

from callbacks.errors import RunError
from callbacks.recording.abstention import measure, threshold_of_risk, threshold_of_share
from callbacks.recording.decision import Decision
from callbacks.recording.lesions import image_weights, share

CLASSES = ("mel", "nv", "bcc")


@pytest.fixture(params=range(4))
def seen(request):
    """Confidence, mistakes, labels and lesions of 80 images; some confidences are equal."""
    draw = np.random.default_rng(request.param)
    lesion = np.sort(draw.integers(40, size=80))
    lesion = np.unique(lesion, return_inverse=True)[1]
    confidence = draw.random(80).round(2)
    wrong = draw.random(80) > 0.3 + 0.6 * confidence
    return confidence, wrong, draw.integers(3, size=40)[lesion], lesion


def kept(confidence, wrong, lesion, threshold):
    """Share that is decided and its risk, image by image."""
    decided = mistaken = 0.0
    for i, number in enumerate(lesion):
        if confidence[i] >= threshold:
            decided += 1 / (lesion == number).sum()
            mistaken += wrong[i] / (lesion == number).sum()
    return decided / len(set(lesion.tolist())), mistaken / decided


@pytest.mark.parametrize("max_risk", [0.15, 0.25, 0.3, 0.9])
def test_threshold_of_a_risk_against_a_loop(seen, max_risk):
    confidence, wrong, _, lesion = seen
    met = [t for t in confidence if kept(confidence, wrong, lesion, t)[1] <= max_risk]
    if not met:
        with pytest.raises(RunError, match="the lowest is .*: set a higher RISK="):
            threshold_of_risk(confidence, wrong, lesion, max_risk)
        return
    assert threshold_of_risk(confidence, wrong, lesion, max_risk) == min(met)


@pytest.mark.parametrize("min_share", [0.01, 0.4, 0.8, 1.0])
def test_threshold_of_a_share_against_a_loop(seen, min_share):
    confidence, wrong, _, lesion = seen
    enough = [t for t in confidence if kept(confidence, wrong, lesion, t)[0] >= min_share - 1e-12]
    assert threshold_of_share(confidence, lesion, min_share) == max(enough)


def test_thresholds_of_a_single_image():
    one = np.array([0.4]), np.array([0])
    assert threshold_of_share(*one, 0.5) == threshold_of_risk(one[0], np.array([0]), one[1], 0)
    with pytest.raises(RunError, match=r"the lowest is 1\.000"):
        threshold_of_risk(one[0], np.array([1]), one[1], 0.5)


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_numbers_out_of_range(value):
    confidence, lesion = np.array([0.4]), np.array([0])
    with pytest.raises(RunError, match="from 0 to below 1"):
        threshold_of_risk(confidence, confidence > 1, lesion, value)
    with pytest.raises(RunError, match="above 0 and at most 1"):
        threshold_of_share(confidence, lesion, value)


def test_measures_against_a_loop(seen):
    confidence, wrong, label, lesion = seen
    found = measure(confidence >= 0.4, wrong, label, lesion, CLASSES)
    decided, risk = kept(confidence, wrong, lesion, 0.4)
    assert (found["share"], found["risk"]) == pytest.approx((decided, risk))
    risks = []
    for c, name in enumerate(CLASSES):
        rows = label == c
        expected = kept(confidence[rows], wrong[rows], lesion[rows], 0.4)
        in_class = found["per_class"][name]
        assert (in_class["share"], in_class["risk"]) == pytest.approx(expected)
        risks.append(expected[1])
    assert found["balanced_risk"] == pytest.approx(np.mean(risks))
    for name in ("share", "risk", "balanced_risk"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    assert found == measure(confidence >= 0.4, wrong, label, lesion, CLASSES)


def test_measures_where_nothing_is_decided():
    none = np.zeros(3, bool)
    found = measure(none, ~none, np.array([0, 0, 1]), np.arange(3), CLASSES)
    assert found["share"] == 0
    assert math.isnan(found["risk"])
    assert math.isnan(found["balanced_risk"])
    assert np.isnan(found["balanced_risk_interval"]).all()


def test_an_undecided_class_does_not_count_in_the_balanced_risk():
    confident, wrong = np.array([True, True, False]), np.array([True, False, True])
    found = measure(confident, wrong, np.array([0, 0, 1]), np.arange(3), CLASSES)
    assert found["balanced_risk"] == 0.5
    assert found["per_class"]["nv"]["share"] == 0
    assert math.isnan(found["per_class"]["nv"]["risk"])


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 17), (1, 1)])
def test_intervals_of_shares_are_those_of_clopper_and_pearson(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    found = share(np.arange(n) < hits, np.arange(n))
    assert found == pytest.approx((hits / n, expected.low, expected.high))


def test_a_lesion_counts_once():
    lesion = np.array([0, 0, 0, 1])
    assert image_weights(lesion) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    hits = np.array([True, True, True, False])
    assert share(hits, lesion).value == pytest.approx(0.5)
    assert share(hits, lesion)[1:] == pytest.approx(share(hits[2:], np.arange(2))[1:])
    assert all(map(math.isnan, share(hits, lesion, among=np.zeros(4, bool))))


def test_confidence_is_the_probability_of_the_decided_class():
    draw = torch.Generator().manual_seed(0)
    probability = torch.randn(50, 3, generator=draw).softmax(1)
    plain = Decision(CLASSES)
    torch.testing.assert_close(
        plain.confidence(probability), probability.amax(1), check_dtype=False
    )
    costs = ((0.0, 1.0, 4.0), (1.0, 0.0, 1.0), (2.0, 9.0, 0.0))
    decision = Decision(CLASSES, 1.5, (0.3, -1.0, 0.0), costs, threshold=0.5)
    found = decision.confidence(probability)
    for i, row in enumerate(probability.tolist()):
        odds = [p ** (1 / 1.5) * math.exp(b) for p, b in zip(row, decision.offsets, strict=True)]
        expected = odds[decision(probability)[i]] / sum(odds)
        assert found[i].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(decision.confident(probability), found >= 0.5)
    assert plain.confident(probability).all()


def test_a_threshold_is_kept_with_the_decision(tmp_path):
    decision = Decision(CLASSES, 1.5, threshold=0.625)
    decision.save(tmp_path)
    assert Decision.load(tmp_path) == decision
    text = (tmp_path / "decision.json").read_text()
    (tmp_path / "decision.json").write_text(text.replace(',\n  "threshold": 0.625', ""))
    assert Decision.load(tmp_path, CLASSES).threshold is None  # decisions of older versions
    (tmp_path / "decision.json").write_text(text.replace("0.625", "Infinity"))
    with pytest.raises(RunError, match="finite"):
        Decision.load(tmp_path)
    with pytest.raises(RunError, match="is for other classes: choose it again"):
        decision.save(tmp_path)
        Decision.load(tmp_path, ("nv", "mel"))
