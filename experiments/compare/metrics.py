"""Metrics of weighted images: of the test split, or of many resamples of it at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.compare.intervals import Array
from experiments.compare.risk_coverage import area_under_risk_coverage
from lightning_modules.definitions import CALIBRATION_BINS, MIN_PROBABILITY, Shots


def scores(
    prediction: Array,
    label: Array,
    weight: Array,
    classes: Sequence[str],
    probability: Array | None = None,
    frequency: Array | None = None,
    shots: Shots | None = None,
) -> dict[str, Array]:
    """Metrics under each of R weightings, as by :class:`~lightning_modules.DiagnosticMetrics`.

    With ``frequency`` also ``natural_accuracy``, the mean of the recalls weighted by the class
    frequencies of the data set: the accuracy expected on images that are as imbalanced as it is.
    (On a balanced test split, accuracy equals balanced accuracy.) The recall of a class without
    images is NaN.

    Args:
        prediction: Predicted classes (N,).
        label: True classes (N,).
        weight: Count of each image (R, N).
        classes: Names of the K classes; of two classes, the second is the positive one.
        probability: Probabilities (N, K); without them, only metrics of decisions are computed.
        frequency: Number of images of each class in the data set (K,).
        shots: Classes with many, medium and few training images, if defined.

    Returns:
        Values (R,) of each metric by name.
    """
    table = confusion(prediction, label, weight, len(classes))
    values = by_confusion(table, classes, shots)
    if frequency is not None:
        recall = np.stack([values[f"recall_{name}"] for name in classes], axis=1)
        values["natural_accuracy"] = _mean(np.nan_to_num(recall), (table.sum(2) > 0) * frequency)
    if probability is not None:
        values |= _by_probability(probability, label, weight)
    return values


def _by_probability(probability: Array, label: Array, weight: Array) -> dict[str, Array]:
    values = {"macro_auroc": np.full(len(weight), np.nan)}
    if len(present := np.unique(label)) > 1:  # else there is nothing to rank
        per_class = [auroc(probability[:, c], label == c, weight) for c in present]
        values["macro_auroc"] = np.mean(per_class, axis=0)
    gap = np.eye(probability.shape[1])[label] - probability
    likelihood = np.maximum(probability[np.arange(len(label)), label], MIN_PROBABILITY)
    values["brier"] = _weighted((gap**2).sum(1), weight)
    values["nll"] = _weighted(-np.log(likelihood), weight)
    values["ece"] = calibration_error(probability, label, weight)
    values["classwise_ece"] = classwise_calibration_error(probability, label, weight)
    wrong = probability.argmax(1) != label
    values["aurc"] = area_under_risk_coverage(probability.max(1), wrong, weight)
    if probability.shape[1] == 2:
        values["average_precision"] = average_precision(probability[:, 1], label == 1, weight)
    return values


def set_scores(
    sets: Array, label: Array, weight: Array, classes: Sequence[str]
) -> dict[str, Array]:
    """Coverage and size of prediction sets under each of R weightings.

    Args:
        sets: Whether each class is in the set of each image (N, K).
        label: True classes (N,).
        weight: Weight of each image (R, N).
        classes: Names of the K classes.

    Returns:
        ``coverage``, the share of the images whose set contains the true class (R,);
        ``coverage_<class>``, that of the images of a class, NaN without any; and ``set_size``, the
        mean number of classes in a set.
    """
    covered = sets[np.arange(len(label)), label]
    of_class = np.eye(len(classes), dtype=weight.dtype)[label]
    hits, images = weight @ (of_class * covered[:, None]), weight @ of_class
    share = np.divide(hits, images, out=np.full(hits.shape, np.nan), where=images > 0)
    return {
        "coverage": _weighted(covered, weight),
        "set_size": _weighted(sets.sum(1), weight),
        **{f"coverage_{name}": share[:, c] for c, name in enumerate(classes)},
    }


def confusion(prediction: Array, label: Array, weight: Array, num_classes: int) -> Array:
    """Confusion matrices (R, K, K): weight of the images by true and predicted class."""
    cells = np.eye(num_classes**2, dtype=weight.dtype)[label * num_classes + prediction]
    return (weight @ cells).reshape(-1, num_classes, num_classes)


def by_confusion(
    confusion: Array, classes: Sequence[str], shots: Shots | None = None
) -> dict[str, Array]:
    """Metrics of confusion matrices (R, K, K); NaN where no class defines them."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted = confusion.sum(2), confusion.sum(1)
    recall, precision = hits / np.maximum(support, 1), hits / np.maximum(predicted, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    occurs = support > 0
    occurs_or_predicted = support + predicted > 0
    known = np.where(occurs, recall, np.nan)
    values = {
        "balanced_accuracy": _mean(recall, occurs),
        "accuracy": hits.sum(1) / np.maximum(support.sum(1), 1),
        "macro_f1": _mean(f1, occurs_or_predicted),
        "macro_precision": _mean(precision, occurs_or_predicted),
    }
    for shot, names in (shots or {}).items():
        rows = [classes.index(name) for name in names]
        values[f"{shot}_accuracy"] = _mean(recall[:, rows], occurs[:, rows])
    for metric, column in {"recall": known, "precision": precision, "f1": f1}.items():
        values |= {f"{metric}_{name}": column[:, c] for c, name in enumerate(classes)}
    if len(classes) == 2:
        values |= {"sensitivity": known[:, 1], "specificity": known[:, 0]}
        values |= {"ppv": precision[:, 1], "npv": precision[:, 0]}
    return values


def auroc(score: Array, positive: Array, weight: Array) -> Array:
    """Share of the pairs of a positive and a negative that the score orders (R,); ties half."""
    ahead = score[positive, None] - score[~positive]
    wins = (np.sign(ahead) + 1).astype(weight.dtype) / 2
    positives, negatives = weight[:, positive], weight[:, ~positive]
    pairs = positives.sum(1, dtype=float) * negatives.sum(1, dtype=float)
    won = ((positives @ wins) * negatives).sum(1, dtype=float)
    return won / pairs


def average_precision(score: Array, positive: Array, weight: Array) -> Array:
    """Mean precision at the scores of the positives (R,); NaN without positives."""
    if not positive.any():
        return np.full(len(weight), np.nan)
    retrieved = (score[:, None] >= score[positive]).astype(weight.dtype)
    precision = (weight[:, positive] @ retrieved[positive]) / np.maximum(weight @ retrieved, 1)
    return np.average(precision, axis=1, weights=weight[:, positive])


def calibration_error(probability: Array, label: Array, weight: Array) -> Array:
    """Expected calibration error of the most likely class (R,)."""
    confidence = probability.max(1)
    gap = (probability.argmax(1) == label) - confidence
    per_bin = weight @ (
        np.eye(CALIBRATION_BINS + 1)[calibration_bin(confidence)] * gap[:, None]
    ).astype(weight.dtype)
    return np.abs(per_bin).sum(1) / weight.sum(1)


def classwise_calibration_error(probability: Array, label: Array, weight: Array) -> Array:
    """Mean over the classes of the calibration errors of their probabilities (R,)."""
    k = probability.shape[1]
    gap = np.zeros((len(label), k * (CALIBRATION_BINS + 1)), dtype=weight.dtype)
    cell = calibration_bin(probability) * k + np.arange(k)
    np.put_along_axis(gap, cell, np.eye(k)[label] - probability, axis=1)
    return np.abs(weight @ gap[:, gap.any(0)]).sum(1) / (k * weight.sum(1))


def calibration_bin(probability: Array) -> Array:
    """Bin of each probability; a probability of exactly 1 has a bin of its own, the last."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1, dtype=np.float32)
    return np.searchsorted(edges, probability, side="right") - 1


def _weighted(values: Array, weight: Array) -> Array:
    """Mean of values of the images (N,) under each weighting (R,)."""
    # Some matrix kernels raise the invalid flag for numbers beyond the end of a short vector.
    with np.errstate(invalid="ignore"):
        return weight @ values.astype(weight.dtype) / weight.sum(1)


def _mean(values: Array, where: Array) -> Array:
    """Mean over the columns, weighted by ``where``; NaN where all weights are 0."""
    count = where.sum(1)
    total = (values * where).sum(1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
