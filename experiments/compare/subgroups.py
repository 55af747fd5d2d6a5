"""Scores by age, sex, body site and diagnosis method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.compare.intervals import Array, Interval, percentiles
from experiments.compare.rows import Row

UNKNOWN = "unknown"
BANDS = ("under 40", "40 to 60", "over 60")
# Share of the resamples that must have a value: every class then has about three lesions.
MIN_RESAMPLE_SHARE = 0.9
GROUP_KINDS = {
    "sex": "sex",
    "localization": "body site",
    "dx_type": "diagnosis method",
    "tone": "skin tone",
}


@dataclass(frozen=True)
class Group:
    """Test images with a property in common.

    Args:
        kind: Property that defines the group, such as "sex".
        name: Value of the property.
        where: Mask of the group's images (N,).
        images: Number of images.
        lesions: Number of lesions.
        lacking: Classes without an image in the group, which its balanced accuracy ignores.
    """

    kind: str
    name: str
    where: Array
    images: int
    lesions: int
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class GroupScores:
    """Means over the seeds with their intervals over lesions.

    Resamples in which the group loses one of its classes are ignored; if these are many, the group
    has too few lesions for an interval.

    Args:
        balanced_accuracy: Mean recall of the classes that occur in the group.
        recall: Recall of each class that occurs.
    """

    balanced_accuracy: tuple[float, Interval | None]
    recall: Mapping[str, tuple[float, Interval | None]]


def groups(row: Row) -> list[Group]:
    """Groups of the test images; none if the predictions lack metadata."""
    run = row.runs[0]
    result = []
    for kind, names in _kinds(run.predictions):
        order = [*BANDS, UNKNOWN] if kind == "age" else sorted(set(names), key=_unknown_last)
        for name in order:
            where = (names == name).to_numpy()
            if where.any():
                occurring = set(run.predictions["dx"][where])
                lacking = tuple(c for c in run.classes if c not in occurring)
                lesions = len(np.unique(run.lesion[where]))
                result.append(Group(kind, name, where, int(where.sum()), lesions, lacking))
    return result


def group_scores(row: Row, group: Group, weight: Array) -> GroupScores:
    """Scores of a row in a group.

    Args:
        row: Row of the comparison.
        group: Group of its test images.
        weight: Count of each image in each resample (R, N).
    """
    ones = np.ones((1, group.images))
    mean = _recalls(row, group, ones)[0]
    resampled = _recalls(row, group, weight[:, group.where])
    recall = {
        name: (float(mean[c]), _interval(resampled[:, c]))
        for c, name in enumerate(row.runs[0].classes)
        if name not in group.lacking
    }
    occurs = ~np.isnan(mean)
    balanced = float(mean[occurs].mean()), _interval(resampled[:, occurs].mean(1))
    return GroupScores(balanced, recall)


def _recalls(row: Row, group: Group, weight: Array) -> Array:
    """Recalls within the group, averaged over the seeds (R, K); NaN for a class without images."""
    run = row.runs[0]
    member = np.eye(len(run.classes), dtype=weight.dtype)[run.label[group.where]]
    right = row.right()[group.where, None].astype(weight.dtype)
    hits, support = weight @ (member * right), weight @ member
    return np.divide(hits, support, out=np.full(hits.shape, np.nan), where=support > 0)


def _interval(values: Array) -> Interval | None:
    known = values[~np.isnan(values)]
    return percentiles(known) if len(known) >= MIN_RESAMPLE_SHARE * len(values) else None


def _kinds(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series[str]]]:
    if "age" in table:
        yield "age", _bands(table["age"])
    for column, kind in GROUP_KINDS.items():
        if column in table:
            yield kind, table[column].astype(object).fillna(UNKNOWN).astype(str)


def _bands(age: pd.Series[float]) -> pd.Series[str]:
    years = pd.to_numeric(age, errors="coerce")
    number = np.select([years < 40, years <= 60, years > 60], [0, 1, 2], default=3)
    return pd.Series(np.array([*BANDS, UNKNOWN])[number], index=age.index)


def _unknown_last(name: str) -> tuple[bool, str]:
    return name == UNKNOWN, name
