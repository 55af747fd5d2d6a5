"""Scores by age, sex, body site, skin tone and diagnosis method, and their differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from experiments.compare.intervals import Array, Interval, percentiles
from experiments.compare.metrics import auroc
from experiments.compare.rows import Row

UNKNOWN = "unknown"
BANDS = ("under 40", "40 to 60", "over 60")
MIN_LESIONS = 20  # a group of fewer is counted, not scored
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
        rest: Mask of the images that have another, known value of the property (N,); empty for
            the group of unknown values.
    """

    kind: str
    name: str
    where: Array
    images: int
    lesions: int
    lacking: tuple[str, ...]
    rest: Array

    @property
    def scored(self) -> bool:
        """Whether the group has enough lesions for scores."""
        return self.lesions >= MIN_LESIONS


Value = tuple[float, Interval | None]


@dataclass(frozen=True)
class GroupScores:
    """Means over the seeds with their intervals over lesions.

    Resamples in which the group loses one of its classes are ignored; if these are many, the group
    has too few lesions for an interval.

    Args:
        balanced_accuracy: Mean recall of the classes that occur in the group.
        recall: Recall of each class that occurs.
        auroc: AUROC of the positive class against all others, such as melanoma; None if only one
            of the two occurs, or without probabilities.
        difference: Balanced accuracy minus that of the ``rest``, both over the classes that occur
            in both; None if there is no such class.
        shared: These classes.
    """

    balanced_accuracy: Value
    recall: Mapping[str, Value]
    auroc: Value | None = None
    difference: Value | None = None
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gap:
    """Balanced accuracy of the best minus that of the worst group of a kind.

    Both are over the classes that occur in every scored group of the kind. The interval is that of
    these two groups, which were chosen for their scores: it starts above 0 more often than chance
    allows, unlike those of a group's difference from the rest.

    Args:
        kind: Property that defines the groups.
        best: Name of the best group.
        worst: Name of the worst group.
        classes: The classes.
        value: The gap with its interval over lesions.
    """

    kind: str
    best: str
    worst: str
    classes: tuple[str, ...]
    value: Value


def groups(row: Row) -> list[Group]:
    """Groups of the test images; none if the predictions lack metadata."""
    run = row.runs[0]
    result = []
    for kind, names in _kinds(run.predictions):
        known = (names != UNKNOWN).to_numpy()
        order = [*BANDS, UNKNOWN] if kind == "age" else sorted(set(names), key=_unknown_last)
        for name in order:
            where = (names == name).to_numpy()
            if where.any():
                occurring = set(run.predictions["dx"][where])
                lacking = tuple(c for c in run.classes if c not in occurring)
                lesions = len(np.unique(run.lesion[where]))
                rest = known & ~where if name != UNKNOWN else np.zeros_like(where)
                images = int(where.sum())
                result.append(Group(kind, name, where, images, lesions, lacking, rest))
    return result


def group_scores(row: Row, group: Group, weight: Array, positive: str | None = None) -> GroupScores:
    """Scores of a row in a group.

    Args:
        row: Row of the comparison.
        group: Group of its test images.
        weight: Count of each image in each resample (R, N).
        positive: Class whose AUROC is computed.
    """
    classes = row.runs[0].classes
    inside, outside = (recalls(row, weight, where) for where in (group.where, group.rest))
    recall = {name: _value(inside[:, c]) for c, name in enumerate(classes) if _occurs(inside)[c]}
    both = _occurs(inside) & _occurs(outside)
    difference = inside[:, both].mean(1) - outside[:, both].mean(1) if both.any() else None
    return GroupScores(
        balanced_accuracy=_value(inside[:, _occurs(inside)].mean(1)),
        recall=recall,
        auroc=_auroc(row, group.where, weight, positive),
        difference=None if difference is None else _value(difference),
        shared=tuple(np.array(classes)[both].tolist()),
    )


def gaps(row: Row, test_groups: Sequence[Group], weight: Array) -> list[Gap]:
    """Gaps between the best and the worst group of each kind that has two or more scored groups.

    Args:
        row: Row of the comparison.
        test_groups: Groups of its test images, from :func:`groups`.
        weight: Count of each image in each resample (R, N).
    """
    result = []
    known = [group for group in test_groups if group.scored and group.name != UNKNOWN]
    for kind, members in groupby(known, key=lambda group: group.kind):
        of_kind = list(members)
        of_groups = np.stack([recalls(row, weight, group.where) for group in of_kind])
        shared = ~np.isnan(of_groups[:, 0]).any(0)
        if len(of_kind) < 2 or not shared.any():
            continue
        balanced = of_groups[:, :, shared].mean(2)  # groups, resamples
        best, worst = balanced[:, 0].argmax(), balanced[:, 0].argmin()
        classes = tuple(np.array(row.runs[0].classes)[shared].tolist())
        names = of_kind[best].name, of_kind[worst].name
        result.append(Gap(kind, *names, classes, _value(balanced[best] - balanced[worst])))
    return result


def recalls(row: Row, weight: Array, where: Array | None = None) -> Array:
    """Recalls, averaged over the seeds (1 + R, K); NaN for a class without images.

    Args:
        row: Row of the comparison.
        weight: Count of each image in each resample (R, N).
        where: Mask of the images that count (N,); all by default.

    Returns:
        Recalls of the images as they are, and below of each resample.
    """
    run = row.runs[0]
    counted = np.ones(len(run.label), bool) if where is None else where
    member = np.eye(len(run.classes))[run.label] * counted[:, None]
    hits, support = _sums(weight, member * row.right()[:, None]), _sums(weight, member)
    return np.divide(hits, support, out=np.full(hits.shape, np.nan), where=support > 0)


def _auroc(row: Row, where: Array, weight: Array, positive: str | None) -> Value | None:
    """AUROC of a class against all others within a group, averaged over the seeds."""
    run = row.runs[0]
    if row.decided or positive not in run.classes:
        return None
    c = run.classes.index(positive)
    of_class = run.label[where] == c
    if of_class.all() or not of_class.any():
        return None
    weight = _with_ones(weight[:, where])
    with np.errstate(invalid="ignore"):  # resamples without a pair have no value
        per_seed = [auroc(each.probability[where, c], of_class, weight) for each in row.runs]
    return _value(np.mean(per_seed, axis=0))


def _sums(weight: Array, values: Array) -> Array:
    """Sums of values of the images (N, K) as they are, and below under each weighting (R, N)."""
    return np.concatenate([values.sum(0, keepdims=True), weight @ values.astype(weight.dtype)])


def _with_ones(weight: Array) -> Array:
    """Weights of the images as they are, and below those of each resample."""
    return np.concatenate([np.ones((1, weight.shape[1]), weight.dtype), weight])


def _occurs(recall: Array) -> Array:
    return ~np.isnan(recall[0])


def _value(values: Array) -> Value:
    """The value of the images as they are, which is the first, with its interval."""
    return float(values[0]), _interval(values[1:])


def _interval(values: Array) -> Interval | None:
    known = values[~np.isnan(values)]
    return percentiles(known) if len(known) >= MIN_RESAMPLE_SHARE * len(values) else None


def _kinds(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series[str]]]:
    if "age" in table:
        yield "age", _bands(table["age"])
    for column, kind in GROUP_KINDS.items():
        if column in table:
            yield kind, _names(table[column])


def _names(values: pd.Series[Any]) -> pd.Series[str]:
    """Values as text; numbers such as skin types without a decimal point where they have none."""
    if pd.api.types.is_numeric_dtype(values):
        values = values.map("{:g}".format, na_action="ignore")
    return values.astype(object).fillna(UNKNOWN).astype(str)


def _bands(age: pd.Series[float]) -> pd.Series[str]:
    years = pd.to_numeric(age, errors="coerce")
    number = np.select([years < 40, years <= 60, years > 60], [0, 1, 2], default=3)
    return pd.Series(np.array([*BANDS, UNKNOWN])[number], index=age.index)


def _unknown_last(name: str) -> tuple[bool, str]:
    return name == UNKNOWN, name
