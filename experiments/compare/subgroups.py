"""Whether a method serves everyone alike: scores by age, sex, body site and diagnosis method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.compare.intervals import Interval, percentiles
from experiments.compare.rows import Row

Array = NDArray[Any]
UNKNOWN = "unknown"
BANDS = ("under 40", "40 to 60", "over 60")
ENOUGH = 0.9  # of the resamples: then every class has three lesions or so
COLUMNS = {"sex": "sex", "localization": "body site", "dx_type": "diagnosis method"}


@dataclass(frozen=True)
class Group:
    """Some of the test images, known by something that is no diagnosis.

    Args:
        kind: What it is a group by.
        name: Of the group.
        where: Its images (N,).
        images: How many.
        lesions: Of how many lesions.
        lacking: Classes that none of its images is of; balanced accuracy is of the others.
    """

    kind: str
    name: str
    where: Array
    images: int
    lesions: int
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class GroupScores:
    """Means over the seeds with their intervals over lesions; an absent class has no recall.

    Resamples in which the group loses one of its classes are passed over; where these are many,
    there are too few lesions for an interval.

    Args:
        balanced_accuracy: Over the classes that occur in the group.
        recall: Of each class.
    """

    balanced_accuracy: tuple[float, Interval | None]
    recall: Mapping[str, tuple[float, Interval | None]]


def groups(row: Row) -> list[Group]:
    """The groups of a comparison's test part; none where nothing is known of the images."""
    run = row.runs[0]
    found = []
    for kind, names in _kinds(run.predictions):
        order = [*BANDS, UNKNOWN] if kind == "age" else sorted(set(names), key=_unknown_last)
        for name in order:
            where = (names == name).to_numpy()
            if where.any():
                there = set(run.predictions["dx"][where])
                lacking = tuple(c for c in run.classes if c not in there)
                lesions = len(np.unique(run.lesion[where]))
                found.append(Group(kind, name, where, int(where.sum()), lesions, lacking))
    return found


def group_scores(row: Row, group: Group, weight: Array) -> GroupScores:
    """How a row does in a group.

    Args:
        row: Of the comparison.
        group: Of the same test part.
        weight: How often each image counts in each resample (R, N).
    """
    ones = np.ones((1, group.images))
    mean = _recalls(row, group, ones)[0]
    resampled = _recalls(row, group, weight[:, group.where])
    recall = {
        name: (float(mean[c]), _interval(resampled[:, c]))
        for c, name in enumerate(row.runs[0].classes)
        if name not in group.lacking
    }
    there = ~np.isnan(mean)
    balanced = float(mean[there].mean()), _interval(resampled[:, there].mean(1))
    return GroupScores(balanced, recall)


def _recalls(row: Row, group: Group, weight: Array) -> Array:
    """Recalls (R, K) within the group, means over the seeds; NaN without an image of a class."""
    run = row.runs[0]
    member = np.eye(len(run.classes), dtype=weight.dtype)[run.label[group.where]]
    right = row.right()[group.where, None].astype(weight.dtype)
    hits, support = weight @ (member * right), weight @ member
    return np.divide(hits, support, out=np.full(hits.shape, np.nan), where=support > 0)


def _interval(values: Array) -> Interval | None:
    known = values[~np.isnan(values)]
    return percentiles(known) if len(known) >= ENOUGH * len(values) else None


def _kinds(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series[str]]]:
    if "age" in table:
        yield "age", _bands(table["age"])
    for column, kind in COLUMNS.items():
        if column in table:
            yield kind, table[column].astype(object).fillna(UNKNOWN).astype(str)


def _bands(age: pd.Series[Any]) -> pd.Series[str]:
    years = pd.to_numeric(age, errors="coerce")
    number = np.select([years < 40, years <= 60, years > 60], [0, 1, 2], default=3)
    return pd.Series(np.array([*BANDS, UNKNOWN])[number], index=age.index)


def _unknown_last(name: str) -> tuple[bool, str]:
    return name == UNKNOWN, name
