"""Tables of the tests on other data sets, and of the subgroups of all tests."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from experiments.compare.comparison import Comparison
from experiments.compare.external import ExternalTest
from experiments.compare.rows import Estimate, Row
from experiments.compare.subgroups import (
    Gap,
    Group,
    GroupScores,
    Value,
    gaps,
    group_scores,
    groups,
)
from experiments.compare.table import (
    ends,
    interval,
    markdown_of,
    number,
    numbers,
    plus_minus,
    show_tables,
)

OWN = "own test"
CHANGE_LEGEND = (
    "Own test: balanced accuracy on the own test split, over the classes that occur in the other "
    "data set. Change: on the other data set minus own test; both are resampled."
)


@dataclass(frozen=True)
class Subgroups:
    """Subgroups of one test, with the scores and gaps of each row by its name.

    Args:
        test: Name of the data set, or ``own test``.
        group: Unit of resampling, such as ``lesion``.
        groups: Groups of the test images.
        scores: Scores of each group, None for groups of few lesions.
        gaps: Gaps between the best and the worst group of each kind.
    """

    test: str
    group: str
    groups: list[Group]
    scores: dict[str, list[GroupScores | None]]
    gaps: dict[str, list[Gap]]


def subgroups(comparison: Comparison) -> list[Subgroups]:
    """Subgroups of the own test split, then those of each other data set."""
    others = [(test.name, test.group, test.comparison) for test in comparison.external]
    return [_subgroups(*test) for test in ((OWN, comparison.group, comparison), *others)]


def _subgroups(name: str, group: str, comparison: Comparison) -> Subgroups:
    test_groups = groups(comparison.rows[0])
    weight, positive = comparison.weight, comparison.positive
    scores = {
        row.name: [
            group_scores(row, g, weight, positive) if g.scored else None for g in test_groups
        ]
        for row in comparison.rows
    }
    return Subgroups(
        name,
        group,
        test_groups,
        scores,
        {row.name: gaps(row, test_groups, weight) for row in comparison.rows},
    )


def show(comparison: Comparison) -> None:
    """Print a table for each other data set."""
    for test in comparison.external:
        show_tables([changes(test, comparison.group)], [test.legend, CHANGE_LEGEND])


def markdown(comparison: Comparison) -> str:
    """The same in Markdown, each table after an empty line."""
    return "".join(
        "\n" + markdown_of(changes(test, comparison.group), [test.legend, CHANGE_LEGEND])
        for test in comparison.external
    )


def changes(test: ExternalTest, group: str) -> pd.DataFrame:
    """Balanced accuracy of each row on the own test split and on another data set, as text.

    Args:
        test: Test on the other data set.
        group: Unit of resampling on the own test split, such as ``lesion``.
    """
    lines = []
    for row in test.comparison.rows:
        change = test.changes[row.name]
        seeds = plus_minus(change.difference.mean, change.difference.seeds)
        lines.append(
            {
                "name": row.name,
                "seeds": str(len(row.runs)),
                f"{OWN} [{group}s]": _cell(change.own),
                f"{test.name} [{test.group}s]": _cell(change.other),
                "change": _cell(change.difference, sign=True),
                "over seeds": seeds or "one seed",
            }
        )
    return pd.DataFrame(lines)


def gap_numbers(tests: list[Subgroups]) -> pd.DataFrame:
    """A line for each test, row and kind of groups: the gap between the best and the worst."""
    lines = [
        {"test": test.test, "resampled": test.group, "name": name, **gap_record(gap)}
        for test in tests
        for name, of_row in test.gaps.items()
        for gap in of_row
    ]
    return pd.DataFrame(lines, columns=None if lines else ["test", "name"])


def gap_record(gap: Gap) -> dict[str, object]:
    """A gap as plain values."""
    names = {"kind": gap.kind, "best": gap.best, "worst": gap.worst}
    return {**names, "classes": " ".join(gap.classes), **_value("gap", gap.value)}


def external_numbers(comparison: Comparison) -> pd.DataFrame:
    """A line for each other data set and row, with all metrics there and the change."""
    return pd.DataFrame(
        [_line(test, row) for test in comparison.external for row in test.comparison.rows],
        columns=None if comparison.external else ["on", "name"],
    )


def _line(test: ExternalTest, row: Row) -> dict[str, object]:
    line = {"on": test.name, **numbers(row), "images": len(test.first.label)}
    line |= {"resampled": test.group, "groups": int(test.first.lesion.max()) + 1}
    change = test.changes[row.name]
    for name, value in (("own_same_classes", change.own), ("change", change.difference)):
        line[name] = value.mean
        for kind, bounds in (("seeds", value.seeds), ("lesions", value.lesions)):
            line |= {f"{name}_{kind}_{end}": v for end, v in ends(bounds)}
    return line


def subgroup_numbers(tests: list[Subgroups]) -> pd.DataFrame:
    """A line for each test, row and group; groups of few lesions are counted, not scored."""
    lines = [
        {"test": test.test, "resampled": test.group, "name": name, **record(group, scores)}
        for test in tests
        for name, of_row in test.scores.items()
        for group, scores in zip(test.groups, of_row, strict=True)
    ]
    return pd.DataFrame(lines, columns=None if lines else ["test", "name"])


def record(group: Group, scores: GroupScores | None) -> dict[str, object]:
    """The size and the scores of a group as plain values."""
    line: dict[str, object] = {"kind": group.kind, "group": group.name, "images": group.images}
    line |= {"lesions": group.lesions, "lacking": " ".join(group.lacking)}
    if scores is None:
        return line
    line |= _value("balanced_accuracy", scores.balanced_accuracy)
    line |= _value("difference_from_rest", scores.difference)
    line |= {"shared_classes": " ".join(scores.shared)}
    line |= _value("auroc", scores.auroc)
    for name, value in scores.recall.items():
        line |= _value(f"recall_{name}", value)
    return line


def _value(name: str, value: Value | None) -> dict[str, float | None]:
    if value is None:
        return {}
    return {name: value[0]} | {f"{name}_{end}": v for end, v in ends(value[1])}


def _cell(value: Estimate, sign: bool = False) -> str:
    return f"{number(value, sign)} {interval(value.lesions)}".strip()
