"""Risk and coverage: errors among the images of which a network is most confident."""

from __future__ import annotations

import numpy as np

from experiments.compare.intervals import Array

COVERAGES = np.arange(1, 51) / 50


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
    behind = np.arange(len(weight))[:, None]
    share = covered / covered[:, -1:].astype(float) + behind
    reached = np.searchsorted(share.ravel(), (COVERAGES - 1e-9 + behind).ravel())
    risk = errors.ravel()[reached] / covered.ravel()[reached]
    return risk.reshape(len(weight), len(COVERAGES))


def _accepted(confidence: Array, wrong: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Weights by falling confidence, and the images and errors at least as confident (R, N)."""
    order = np.argsort(-confidence, kind="stable")
    doubt = -confidence[order]
    last = np.searchsorted(doubt, doubt, side="right") - 1
    ordered = np.take(weight, order, axis=1)
    covered = ordered.cumsum(1)
    errors = (ordered * wrong[order].astype(weight.dtype)).cumsum(1)
    return ordered, np.take(covered, last, axis=1), np.take(errors, last, axis=1)
