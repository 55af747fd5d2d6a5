"""Intervals over seeds and over lesions, and tests of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtrit  # scipy.stats takes a second to import

from callbacks.recording.lesions import lesion_weights as lesion_weights

Array = NDArray[Any]
Interval = tuple[float, float]
LEVEL = 0.95


def over_seeds(values: Array) -> Interval | None:
    """Student's t interval for the mean over training runs; None for fewer than two."""
    if len(values) < 2:
        return None
    half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def percentiles(values: Array) -> Interval | None:
    """Bootstrap interval of resampled values (R,); None if a resample has no value."""
    if not len(values) or np.isnan(values).any():
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap_p(differences: Array) -> float:
    """Two-sided p-value of no difference (R,): the level a at which the 1 - a interval ends at 0.

    The smallest possible value is 2 / (R + 1).
    """
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    return min(1.0, float(2 * tail / (len(differences) + 1)))


def mcnemar(one: Array, other: Array, lesion: Array) -> tuple[int, int, float]:
    """McNemar's exact test with lesions as the units.

    A lesion is discordant if one method classifies it correctly more often than the other, over
    its images and the seeds. More seeds, which see the same images, or more images of a lesion
    therefore do not multiply the evidence. With one seed and one image per lesion this is the
    original test.

    Args:
        one: Share of the seeds that classify each image correctly (N,).
        other: Likewise for the other method.
        lesion: Number of each image's lesion, from 0 (N,).

    Returns:
        Number of lesions that ``one`` classifies correctly more often, number that ``other``
        does, and the p-value.
    """
    ahead = np.bincount(lesion, weights=one - other)
    ahead[np.abs(ahead) < 1e-9] = 0  # thirds do not add up exactly
    better, worse = int((ahead > 0).sum()), int((ahead < 0).sum())
    if better + worse == 0:
        return 0, 0, 1.0
    tail = float(bdtr(min(better, worse), better + worse, 0.5))
    return better, worse, min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted for the family-wise error rate (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    result = np.empty(len(order))
    result[order] = adjusted
    return [float(p) for p in result]
