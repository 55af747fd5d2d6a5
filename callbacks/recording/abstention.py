"""Selective prediction: a decision abstains below a confidence that validation chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from callbacks.console import decimals
from callbacks.errors import RunError
from callbacks.recording.lesions import LEVEL, Array, image_weights, lesion_weights, share

RESAMPLES = 2000


def threshold_of_risk(confidence: Array, wrong: Array, lesion: Array, max_risk: float) -> float:
    """The smallest threshold at which the decided images have at most the given risk.

    The selective risk (https://arxiv.org/abs/1705.08500) is the share of wrong decisions among
    those made; every lesion counts once. It is met on the validation split, without a guarantee:
    on new lesions it tends to be higher, because the threshold was chosen by it.

    Args:
        confidence: Confidence of each image's decision (N,).
        wrong: Whether each decision is wrong (N,).
        lesion: Number of each image's lesion, from 0 (N,).
        max_risk: Largest risk, in [0, 1).

    Raises:
        RunError: The risk is out of range, or no threshold reaches it.

    Examples:
        >>> import numpy as np
        >>> confidence, wrong = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 0, 0])
        >>> threshold_of_risk(confidence, wrong, np.arange(4), max_risk=0.3)
        0.6
    """
    if not 0 <= max_risk < 1:
        raise RunError(f"A risk of {max_risk} cannot be met: set RISK= (--risk) from 0 to below 1.")
    values, decided = _decided(confidence, lesion, np.ones_like(confidence))
    risks = _decided(confidence, lesion, wrong)[1] / decided
    enough = risks <= max_risk + 1e-9  # thirds do not add up exactly
    if not enough.any():
        raise RunError(
            f"No threshold on the confidence has a validation risk of at most {max_risk}; the "
            f"lowest is {decimals(float(risks.min()))}: set a higher RISK= (--risk)."
        )
    return float(values[enough][0])


def threshold_of_share(confidence: Array, lesion: Array, min_share: float) -> float:
    """The largest threshold at which at least the given share of the lesions is decided.

    Args:
        confidence: Confidence of each image's decision (N,).
        lesion: Number of each image's lesion, from 0 (N,).
        min_share: Smallest share that is decided, in (0, 1].

    Raises:
        RunError: The share is out of range.

    Examples:
        >>> import numpy as np
        >>> threshold_of_share(np.array([0.9, 0.8, 0.7, 0.6]), np.arange(4), min_share=0.5)
        0.8
    """
    if not 0 < min_share <= 1:
        raise RunError(
            f"A share of {min_share} cannot be decided: set SHARE= (--share) above 0 and at most 1."
        )
    values, decided = _decided(confidence, lesion, np.ones_like(confidence))
    return float(values[decided >= min_share * decided[0] - 1e-9][-1])


def _decided(confidence: Array, lesion: Array, counted: Array) -> tuple[Array, Array]:
    """The distinct confidences, ascending, and the weight that is counted from each one on."""
    values, place = np.unique(confidence, return_inverse=True)
    weight = np.bincount(place, weights=image_weights(lesion) * counted, minlength=len(values))
    return values, weight[::-1].cumsum()[::-1]


def measure(
    confident: Array, wrong: Array, label: Array, lesion: Array, classes: Sequence[str]
) -> dict[str, Any]:
    """Share that is decided, and the risk of these decisions; every lesion counts once.

    Args:
        confident: Whether each image is decided (N,).
        wrong: Whether each decision is, or would be, wrong (N,).
        label: True classes (N,).
        lesion: Number of each image's lesion, from 0 (N,).
        classes: Names of the classes.

    Returns:
        ``share``, ``risk`` and ``balanced_risk``, each with its 95 % interval
        ``<name>_interval``, and ``per_class`` the share and the risk of each true class. The
        balanced risk is the mean of the risks of the classes of which some image is decided: a
        class that is never decided does not count, see its share. NaN where nothing is decided.
    """
    decided, mistaken = share(confident, lesion), share(wrong, lesion, confident)
    weight = image_weights(lesion)
    resamples = lesion_weights(lesion, label, RESAMPLES) * weight
    return {
        "share": decided.value,
        "share_interval": [decided.low, decided.high],
        "risk": mistaken.value,
        "risk_interval": [mistaken.low, mistaken.high],
        "balanced_risk": float(_balanced(weight[None], confident, wrong, label)[0]),
        "balanced_risk_interval": _ends(_balanced(resamples, confident, wrong, label)),
        "per_class": {
            name: {
                "share": share(confident, lesion, label == c).value,
                "risk": share(wrong, lesion, confident & (label == c)).value,
            }
            for c, name in enumerate(classes)
        },
    }


def _balanced(weight: Array, confident: Array, wrong: Array, label: Array) -> Array:
    """Mean risk of the classes that are decided, for each row of weights (R, N)."""
    risks, known = np.zeros(len(weight)), np.zeros(len(weight))
    for c in np.unique(label):
        decided = weight[:, confident & (label == c)].sum(1)
        mistaken = weight[:, confident & wrong & (label == c)].sum(1)
        risks += np.divide(mistaken, decided, out=np.zeros(len(weight)), where=decided > 0)
        known += decided > 0
    return np.divide(risks, known, out=np.full(len(weight), np.nan), where=known > 0)


def _ends(values: Array) -> list[float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return [np.nan, np.nan]
    return [float(end) for end in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
