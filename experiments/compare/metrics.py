"""The protocol's metrics under weights of the images: of the test part, or of many resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.metrics import SHOTS

Array = NDArray[Any]
BINS = 15


def scores(
    prediction: Array,
    label: Array,
    weight: Array,
    classes: Sequence[str],
    probability: Array | None = None,
    frequency: Array | None = None,
) -> dict[str, Array]:
    """Each metric under each of R weightings, as :class:`~lightning_modules.DiagnosticMetrics`.

    Besides, ``natural_accuracy``: the accuracy on images whose classes come as in the data set,
    the mean of the recalls under ``frequency``, over the classes that occur. Of a test part that is
    balanced, accuracy is balanced accuracy. A class that does not occur has no recall, which is
    NaN.

    Args:
        prediction: Decided classes (N,).
        label: True classes (N,).
        weight: How often each image counts (R, N).
        classes: Names of the K classes; of two, the second is the positive one.
        probability: (N, K). Without it, only what decisions determine.
        frequency: Images per class of the data set (K,).

    Returns:
        Name to values (R,).
    """
    table = confusion(prediction, label, weight, len(classes))
    values = by_confusion(table, classes)
    if frequency is not None:
        recall = np.stack([values[f"recall_{name}"] for name in classes], axis=1)
        values["natural_accuracy"] = _mean(np.nan_to_num(recall), (table.sum(2) > 0) * frequency)
    if probability is None:
        return values
    values["macro_auroc"] = np.full(len(weight), np.nan)
    if len(present := np.unique(label)) > 1:  # else there is nothing to rank
        each = [auroc(probability[:, c], label == c, weight) for c in present]
        values["macro_auroc"] = np.mean(each, axis=0)
    values["ece"] = calibration_error(probability, label, weight)
    if len(classes) == 2:
        values["average_precision"] = average_precision(probability[:, 1], label == 1, weight)
    return values


def confusion(prediction: Array, label: Array, weight: Array, num_classes: int) -> Array:
    """Weight of each true class given to each class (R, K, K)."""
    cells = np.eye(num_classes**2, dtype=weight.dtype)[label * num_classes + prediction]
    return (weight @ cells).reshape(-1, num_classes, num_classes)


def by_confusion(confusion: Array, classes: Sequence[str]) -> dict[str, Array]:
    """What confusion matrices (R, K, K) of counts determine; a metric of no class is NaN."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted = confusion.sum(2), confusion.sum(1)
    recall, precision = hits / np.maximum(support, 1), hits / np.maximum(predicted, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    occurs, seen = support > 0, support + predicted > 0
    known = np.where(occurs, recall, np.nan)
    values = {
        "balanced_accuracy": _mean(recall, occurs),
        "accuracy": hits.sum(1) / np.maximum(support.sum(1), 1),
        "macro_f1": _mean(f1, seen),
        "macro_precision": _mean(precision, seen),
    }
    for shot, names in SHOTS.items():
        if all(name in classes for members in SHOTS.values() for name in members):
            rows = [classes.index(name) for name in names]
            values[f"{shot}_accuracy"] = _mean(recall[:, rows], occurs[:, rows])
    for metric, column in {"recall": known, "precision": precision, "f1": f1}.items():
        values |= {f"{metric}_{name}": column[:, c] for c, name in enumerate(classes)}
    if len(classes) == 2:
        values |= {"sensitivity": known[:, 1], "specificity": known[:, 0]}
        values |= {"ppv": precision[:, 1], "npv": precision[:, 0]}
    return values


def auroc(score: Array, positive: Array, weight: Array) -> Array:
    """Share (R,) of the pairs of a positive and a negative that the score orders; ties half."""
    ahead = score[positive, None] - score[~positive]
    wins = (np.sign(ahead) + 1).astype(weight.dtype) / 2
    pairs = weight[:, positive].sum(1, dtype=float) * weight[:, ~positive].sum(1, dtype=float)
    won = ((weight[:, positive] @ wins) * weight[:, ~positive]).sum(1, dtype=float)
    return won / pairs


def average_precision(score: Array, positive: Array, weight: Array) -> Array:
    """Mean precision (R,) at the scores of the positives; NaN without any."""
    if not positive.any():
        return np.full(len(weight), np.nan)
    found = (score[:, None] >= score[positive]).astype(weight.dtype)
    precision = (weight[:, positive] @ found[positive]) / np.maximum(weight @ found, 1)
    return np.average(precision, axis=1, weights=weight[:, positive])


def calibration_error(probability: Array, label: Array, weight: Array) -> Array:
    """Expected calibration error (R,) of the likeliest class, over bins of equal width."""
    confidence = probability.max(1)
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    bins = np.searchsorted(edges, confidence, side="right") - 1
    gap = (probability.argmax(1) == label) - confidence
    per_bin = weight @ (np.eye(BINS + 1)[bins] * gap[:, None]).astype(weight.dtype)
    return np.abs(per_bin).sum(1) / weight.sum(1)


def _mean(values: Array, where: Array) -> Array:
    """Mean over the columns, weighted by ``where`` they are defined; NaN where none is."""
    count = where.sum(1)
    total = (values * where).sum(1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
