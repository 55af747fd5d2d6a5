import numpy as np
import pytest
from scipy import stats

from experiments.compare.intervals import (
    bootstrap_p,
    holm,
    lesion_weights,
    mcnemar,
    over_seeds,
    percentiles,
)


def test_student_interval():
    # t(2, 0.975) = 4.303; s / sqrt(3) = 0.1 / 1.732
    low, high = over_seeds(np.array([0.4, 0.5, 0.6]))
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - 0.5 == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert over_seeds(np.array([0.4])) is None


def test_lesions_are_drawn_whole_and_within_their_class():
    lesion = np.array([0, 0, 1, 2, 2, 2, 3])
    label = np.array([1, 1, 0, 0, 0, 0, 1])
    weight = lesion_weights(lesion, label, resamples=500)
    assert (weight[:, 0] == weight[:, 1]).all()
    assert (weight[:, 3] == weight[:, 4]).all()
    assert (weight[:, 2] + weight[:, 3] == 2).all()  # the two lesions of class 0
    assert (weight[:, 0] + weight[:, 6] == 2).all()
    assert weight.mean(0) == pytest.approx(1, abs=0.1)
    assert (weight == lesion_weights(lesion, label, resamples=500)).all()
    assert (weight != lesion_weights(lesion, label, resamples=500, seed=1)).any()


def test_interval_of_a_proportion_is_the_binomial_one():
    draw = np.random.default_rng(0)
    right = draw.random(400) < 0.7
    weight = lesion_weights(np.arange(400), np.zeros(400, int), resamples=4000)
    low, high = percentiles(weight @ right / 400)
    half = 1.96 * (right.mean() * (1 - right.mean()) / 400) ** 0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert percentiles(np.array([0.1, np.nan])) is None


def test_p_value_agrees_with_the_interval():
    draw = np.random.default_rng(0)
    clear, vague = draw.normal(3, 1, size=2000), draw.normal(1, 1, size=2000)
    assert percentiles(clear)[0] > 0
    assert bootstrap_p(clear) < 0.05
    assert percentiles(vague)[0] < 0
    assert bootstrap_p(vague) > 0.05
    assert bootstrap_p(np.zeros(100)) == 1
    assert bootstrap_p(np.ones(1999)) == pytest.approx(2 / 2000)


def test_mcnemar_is_exact_for_single_images():
    one = np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 5)
    other = np.array([0.0] * 9 + [1.0] * 2 + [1.0] * 5)
    better, worse, p = mcnemar(one, other, np.arange(16))
    assert (better, worse) == (9, 2)
    assert p == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))


def test_neither_seeds_nor_images_of_a_lesion_multiply_the_evidence():
    one, other = np.array([1.0, 0.0, 2 / 3]), np.array([0.0, 1.0, 1 / 3])
    single = mcnemar(one, other, np.arange(3))
    assert mcnemar(np.repeat(one, 10), np.repeat(other, 10), np.repeat(np.arange(3), 10)) == single
    assert mcnemar(one, other, np.array([0, 0, 1]))[:2] == (1, 0)
    mixed = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.4, 0.4])
    assert mcnemar(*mixed, np.zeros(3, int))[:2] == (1, 0)
    thirds = np.array([0.1, 0.2]), np.array([0.3, 0.0])
    assert mcnemar(*thirds, np.array([0, 0])) == (0, 0, 1.0)


def test_holm():
    # Holm (1979): 0.01 * 4, 0.02 * 3, 0.03 * 2 raised to the one before, 0.04 raised too.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
