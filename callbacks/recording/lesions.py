"""Estimates in which every lesion counts once, however many images it has."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import betaincinv  # scipy.stats takes a second to import

Array = NDArray[Any]
LEVEL = 0.95


def lesion_numbers(images: pd.DataFrame) -> Array:
    """Number of each image's lesion, from 0 (N,); an image without a lesion id is its own."""
    lesion, image = images["lesion_id"].fillna(""), images["image_id"]
    return pd.factorize(lesion.where(lesion != "", image))[0]


def image_weights(lesion: Array) -> Array:
    """Weight of each image: 1 / number of images of its lesion (N,).

    Args:
        lesion: Number of each image's lesion, from 0 (N,).
    """
    return 1 / np.bincount(lesion)[lesion]


class Share(NamedTuple):
    """A share of the lesions with its 95 % interval; NaN without lesions.

    Args:
        value: The share, in [0, 1].
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def share(hits: Array, lesion: Array, among: Array | None = None) -> Share:
    """Share of hits, with its Clopper-Pearson interval, in which lesions are the trials.

    A lesion counts with the share of its images that are hits. With one image per lesion the
    interval is exact. Otherwise it is approximate, and rather too wide, because such shares vary
    less than single hits.

    Args:
        hits: Whether each image is a hit (N,).
        lesion: Number of each image's lesion, from 0 (N,).
        among: Whether each image counts (N,); all do by default. A lesion of which some images
            count is a part of a trial.

    Examples:
        >>> import numpy as np
        >>> share(np.array([True, False, True]), np.array([0, 0, 1])).value
        0.75
    """
    weight = image_weights(lesion)
    counted = weight if among is None else weight * among
    trials = float(counted.sum())
    if trials == 0:
        return Share(np.nan, np.nan, np.nan)
    successes = min(float(counted @ hits), trials)
    tail = (1 - LEVEL) / 2
    # The beta distributions of no success and of no failure are limits, of which SciPy has none.
    low = betaincinv(successes, trials - successes + 1, tail) if successes > 0 else 0.0
    failures = trials - successes
    high = betaincinv(successes + 1, failures, 1 - tail) if failures > 1e-9 else 1.0
    return Share(successes / trials, float(low), float(high))


def lesion_weights(lesion: Array, label: Array, resamples: int, seed: int = 0) -> Array:
    """Bootstrap of lesions: count of each image in each resample (R, N).

    Lesions are sampled with replacement within each class, so that every resample has all
    classes. A lesion brings all its images, since these are not independent. A patient with images
    of several classes counts for that of the first.

    Args:
        lesion: Number of each image's lesion, from 0 (N,).
        label: Class of each image (N,).
        resamples: Number of resamples, R.
        seed: Seed of the resamples, the same for every run of a comparison.
    """
    generator = np.random.default_rng(seed)
    first = np.unique(lesion, return_index=True)[1]
    counts = np.zeros((resamples, len(first)), dtype=np.float32)
    for c in np.unique(label):
        members = np.flatnonzero(label[first] == c)
        chance = np.full(len(members), 1 / len(members))
        counts[:, members] = generator.multinomial(len(members), chance, size=resamples)
    return counts[:, lesion]
