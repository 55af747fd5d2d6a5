"""Net benefit of treating by a prediction: decision curves of one class against all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from callbacks.errors import RunError
from experiments.compare.intervals import Array

THRESHOLDS = np.arange(1, 51) / 100
DEFAULT_POSITIVE = "mel"


def positive_class(classes: Sequence[str], name: str | None = None) -> str | None:
    """The class that is treated: by default melanoma, or the second of two classes.

    Args:
        classes: Names of the K classes.
        name: One of them.

    Returns:
        None if no class is named, and the default is not among the classes.

    Raises:
        RunError: There is no class of that name.

    Examples:
        >>> positive_class(["nv", "mel", "bcc"]), positive_class(["benign", "malignant"])
        ('mel', 'malignant')
        >>> positive_class(["cat", "dog", "horse"], "dog")
        'dog'
    """
    if name is not None and name not in classes:
        raise RunError(
            f"There is no class {name!r}: set --positive to one of {', '.join(classes)}."
        )
    default = classes[1] if len(classes) == 2 else None
    return name or (DEFAULT_POSITIVE if DEFAULT_POSITIVE in classes else default)


def class_shares(label: Array, num_classes: int, frequency: Array | None = None) -> Array:
    """Share of each class in the population that net benefit is for (K,).

    Args:
        label: Classes of the test images (N,); the share of a class without any is 0.
        num_classes: Number of classes, K.
        frequency: Number of images of each class in the data set (K,), which is the population;
            None for the test images.
    """
    images = np.bincount(label, minlength=num_classes)
    counts = images if frequency is None else frequency * (images > 0)
    return counts / counts.sum()


def for_shares(probability: Array, share: Array) -> Array:
    """Correct probabilities of a network that was trained on evenly frequent classes (N, K).

    By Bayes' rule, p_c becomes p_c s_c / sum_k p_k s_k (Saerens, Latinne and Decaestecker, 2002,
    eq. 2.4, with an even prior of the training).

    Args:
        probability: Probabilities (N, K).
        share: Share s of each class in the population (K,).
    """
    joint = probability * share
    total = joint.sum(1, keepdims=True)
    return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)


def net_benefit(treated: Array, label: Array, weight: Array, share: Array, positive: int) -> Array:
    """Net benefit at each of the ``THRESHOLDS`` t (R, T): TP/n - FP/n t/(1 - t).

    Definition of Vickers and Elkin (2006, doi:10.1177/0272989X06295361), in a population in which
    classes have the given shares: TP/n is the share of the positive class, multiplied by the
    share of its images that are treated, and FP/n is the sum of the same over all other classes.

    Args:
        treated: Whether each image is treated at each threshold, or in what share of the seeds
            (N, T).
        label: Classes of the images (N,).
        weight: Count of each image (R, N).
        share: Share of each class in the population (K,).
        positive: The class that treatment is for.
    """
    odds = THRESHOLDS / (1 - THRESHOLDS)
    total = np.zeros((len(weight), len(THRESHOLDS)))
    for c in np.flatnonzero(share):
        of_class = weight[:, label == c]
        rate = of_class @ treated[label == c].astype(weight.dtype)
        rate = rate / of_class.sum(1, keepdims=True)
        total += share[c] * rate * (1 if c == positive else -odds)
    return total


def treat_all(share: Array, positive: int) -> Array:
    """Net benefit of treating every patient at each threshold (T,); that of treating none is 0."""
    return share[positive] - (1 - share[positive]) * THRESHOLDS / (1 - THRESHOLDS)
