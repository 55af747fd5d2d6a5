import numpy as np
import pytest

from experiments.compare.risk_coverage import (
    COVERAGES,
    area_under_risk_coverage,
    selective_risk,
)


@pytest.fixture(params=["distinct", "tied"])
def drawn(request):
    """Confidence and errors of 40 images, and the counts of five resamples."""
    draw = np.random.default_rng(0)
    confidence = draw.random(40).astype(np.float32)
    if request.param == "tied":
        confidence = (confidence * 6).round() / 6
    weight = draw.integers(4, size=(5, 40)).astype(np.float32)
    return confidence, draw.random(40) > confidence, weight


def accepted(confidence, wrong, rows):
    """Coverage and risk at each confidence of the drawn images, highest first, in loops."""
    for threshold in sorted({confidence[i] for i in rows}, reverse=True):
        at_least = [i for i in rows if confidence[i] >= threshold]
        yield len(at_least) / len(rows), sum(wrong[i] for i in at_least) / len(at_least)


def test_the_area_is_the_mean_risk_at_the_confidence_of_each_image(drawn):
    confidence, wrong, weight = drawn
    found = area_under_risk_coverage(confidence, wrong, weight)
    for r, counts in enumerate(weight.astype(int)):
        rows = np.repeat(np.arange(40), counts).tolist()
        risks = [np.mean([wrong[j] for j in rows if confidence[j] >= confidence[i]]) for i in rows]
        assert found[r] == pytest.approx(np.mean(risks), abs=1e-6)


def test_the_risk_is_that_of_the_fewest_images_that_reach_the_coverage(drawn):
    confidence, wrong, weight = drawn
    found = selective_risk(confidence, wrong, weight)
    assert found.shape == (5, len(COVERAGES))
    for r, counts in enumerate(weight.astype(int)):
        rows = np.repeat(np.arange(40), counts).tolist()
        curve = list(accepted(confidence, wrong, rows))
        for level, value in zip(COVERAGES, found[r], strict=True):
            expected = next(risk for covered, risk in curve if covered >= level - 1e-9)
            assert value == pytest.approx(expected, abs=1e-6)


def test_the_risk_of_all_images_is_the_error(drawn):
    confidence, wrong, weight = drawn
    found = selective_risk(confidence, wrong, weight)[:, -1]
    assert found == pytest.approx(np.average(np.tile(wrong, (5, 1)), axis=1, weights=weight))


def test_a_perfect_order_has_no_risk_up_to_the_accuracy():
    confidence, wrong = np.arange(50)[::-1] / 50, np.arange(50) >= 40
    risk = selective_risk(confidence, wrong, np.ones((1, 50)))[0]
    assert (risk[COVERAGES <= 0.8] == 0).all()
    assert risk[-1] == pytest.approx(0.2)


def test_one_image_is_a_curve():
    for wrong in (False, True):
        arguments = np.array([0.5]), np.array([wrong]), np.full((3, 1), 2.0)
        assert (selective_risk(*arguments) == wrong).all()
        assert (area_under_risk_coverage(*arguments) == wrong).all()
