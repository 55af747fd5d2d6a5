"""Risk and coverage: errors among the images of which a network is most confident."""

from __future__ import annotations

import numpy as np

from experiments.compare.intervals import Array

COVERAGES = np.arange(1, 21) / 20


def area_under_risk_coverage(confidence: Array, wrong: Array, weight: Array) -> Array:
    """Area under the risk-coverage curve (https://arxiv.org/abs/1805.08206, section 2) (R,).

    Args:
        confidence: Probability of the most likely class (N,).
        wrong: Whether it is not the true class (N,).
        weight: Count of each image (R, N).
    """
    ordered, covered, errors = _accepted(confidence, wrong, weight)
    risk = np.divide(errors, covered, out=np.zeros_like(errors), where=covered > 0)
    return (ordered * risk).sum(1) / covered[:, -1]


def selective_risk(confidence: Array, wrong: Array, weight: Array) -> Array:
    """Share of errors at each of the ``COVERAGES`` (R, C), see https://arxiv.org/abs/1705.08500.

    Images are accepted in the order of their confidence, those of equal confidence together, until
    their share reaches the coverage.

    Args:
        confidence: Probability of the most likely class (N,).
        wrong: Whether it is not the true class (N,).
        weight: Count of each image (R, N).
    """
    _, covered, errors = _accepted(confidence, wrong, weight)
    # One search for all resamples: each is put behind the one before.
    total = covered[:, -1:].astype(float)
    behind = total.cumsum(0) - total
    required = COVERAGES * total - 1e-6 + behind
    reached = np.searchsorted((covered + behind).ravel(), required.ravel())
    risk = errors.ravel()[reached] / covered.ravel()[reached]
    return risk.reshape(len(weight), len(COVERAGES))


def _accepted(confidence: Array, wrong: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Weights by falling confidence, and the images and errors at least as confident (R, N)."""
    order = np.argsort(-confidence, kind="stable")
    ordered = np.take(weight, order, axis=1)
    covered = ordered.cumsum(1)
    errors = (ordered * wrong[order].astype(weight.dtype)).cumsum(1)
    doubt = -confidence[order]
    if (np.diff(doubt) == 0).any():
        last = np.searchsorted(doubt, doubt, side="right") - 1
        covered, errors = np.take(covered, last, axis=1), np.take(errors, last, axis=1)
    return ordered, covered, errors
