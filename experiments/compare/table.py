"""The comparison as a table: on the terminal, in Markdown and, with all metrics, as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from callbacks.console import NO_VALUE, decimals
from experiments.compare import compression
from experiments.compare.comparison import Comparison
from experiments.compare.resources import resources
from experiments.compare.rows import Difference, Estimate, Row

MAIN_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "natural_accuracy": "natural accuracy",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "many_accuracy": "Many",
    "medium_accuracy": "Medium",
    "few_accuracy": "Few",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "coverage": "coverage",
    "set_size": "set size",
    **compression.MAIN_METRICS,
}
WITH_INTERVAL = ("coverage",)  # which is read against what was asked for
FILE_WIDTH = 160  # characters, if the output is no terminal
FEW_SEEDS = 5
SYNTHETIC = "SYNTHETIC DATA: these are not real lesions."


def difference_columns(group: str) -> tuple[str, ...]:
    """Columns of the differences from the baseline.

    Args:
        group: Unit of resampling, such as ``lesion``.
    """
    return (
        f"difference [{group}s]",
        "difference over seeds",
        "p (Holm)",
        f"{group}s better : worse",
        "p McNemar (Holm)",
    )


def compact(comparison: Comparison) -> pd.DataFrame:
    """Main metrics of each row as text: means, with both intervals of balanced accuracy."""
    known = {name for row in comparison.rows for name in row.metrics}
    shown = {name: title for name, title in MAIN_METRICS.items() if name in known}
    group = comparison.group
    lines = []
    for row in comparison.rows:
        first = row.metrics["balanced_accuracy"]
        line = {
            "name": row.name,
            "seeds": str(len(row.runs)),
            f"balanced accuracy [{group}s]": f"{number(first)} {interval(first.lesions)}".strip(),
            "over seeds": plus_minus(first.mean, first.seeds) or "one seed",
        }
        for name, title in list(shown.items())[1:]:
            line |= _column(name, title, group, row.metrics.get(name))
        if comparison.baseline:
            line |= _difference(row.difference, group)
        lines.append(line)
    return pd.DataFrame(lines)


def everything(comparison: Comparison) -> pd.DataFrame:
    """All metrics with their intervals, the differences and the resources, as numbers."""
    return pd.DataFrame([numbers(row) for row in comparison.rows])


def curves(comparison: Comparison) -> pd.DataFrame:
    """All curves as numbers: a line for each row, curve and value of its horizontal axis, ``x``."""
    axis = {"coverage": "x", "threshold": "x"}
    frames = [
        frame.rename(columns=axis).assign(name=row, curve=curve)
        for row, of_row in comparison.curves.items()
        for curve, frame in of_row.items()
    ]
    columns = ["name", "curve", "x", "mean", "low", "high"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def markdown(comparison: Comparison) -> str:
    """The compact table and its legend in Markdown."""
    return markdown_of(compact(comparison), legend(comparison))


def markdown_of(table: pd.DataFrame, sentences: Sequence[str]) -> str:
    """A table of text and sentences below it in Markdown."""
    alignment = ["---", *["---:"] * (table.shape[1] - 1)]
    lines = [list(map(str, table)), alignment, *table.to_numpy().tolist()]
    rows = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
    return "\n".join([*rows, "", *(_cell(line) for line in sentences)]) + "\n"


def show(comparison: Comparison) -> None:
    """Print the compact table and its legend; differences have a table of their own."""
    frame = compact(comparison)
    differences = difference_columns(comparison.group)
    parts = [[str(c) for c in frame if c not in differences], ["name", *differences]]
    kept = parts if comparison.baseline else parts[:1]
    show_tables([frame[columns] for columns in kept], legend(comparison))


def show_tables(frames: Sequence[pd.DataFrame], sentences: Sequence[str]) -> None:
    """Print tables of text and sentences below them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    for frame in frames:
        table = Table(box=box.SIMPLE)
        for i, column in enumerate(frame):
            table.add_column(escape(str(column)), justify="right" if i else "left", overflow="fold")
        for row in frame.itertuples(index=False):
            table.add_row(*[escape(str(cell)) for cell in row])
        console.print(table)
    for line in sentences:
        console.print(escape(line), highlight=False)


def legend(comparison: Comparison) -> list[str]:
    """Explanation of the data, the intervals and the tests, as sentences."""
    lines = [SYNTHETIC] if comparison.synthetic else []
    (resamples, images), group = comparison.weight.shape, comparison.group
    of = "" if group == "image" else f" of {comparison.rows[0].runs[0].lesion.max() + 1} {group}s"
    lines.append(
        f"{images} test images{of}. In brackets: 95 % bootstrap interval over {resamples} "
        f"resamples of the {group}s within each class, the same for all rows."
    )
    lines.append("After ±: half-width of the 95 % Student t interval over seeds.")
    if any("natural_accuracy" in row.metrics for row in comparison.rows):
        lines.append(
            "Natural accuracy: mean of the recalls, weighted by the frequency of each class in "
            "the data set."
        )
    if any("coverage" in row.metrics for row in comparison.rows):
        lines.append(
            "Coverage: share of the prediction sets that contain the true class. Set size: mean "
            f"number of classes in a set. Each {group} counts once: its images share its weight."
        )
    return [*lines, *difference_legend(comparison), *comparison.notes]


def difference_legend(comparison: Comparison) -> list[str]:
    """Explanation of the differences, and of what p-values do not cover; empty without any."""
    if comparison.baseline is None:
        return []
    group = comparison.group
    explanation = (
        f"Differences in balanced accuracy from {comparison.baseline} are paired by {group} and, "
        f"if seeds are shared, by seed. p: two-sided bootstrap test over {group}s. Better : worse: "
        f"number of {group}s that this row, or the baseline, classifies correctly more often, over "
        f"images and seeds. p McNemar: exact test of these {group}s. Both p-values are adjusted "
        "for the number of rows by Holm's method."
    )
    return [explanation, _caution(comparison)]


def _caution(comparison: Comparison) -> str:
    """A caution about what p-values do not cover, with the rows that share few seeds."""
    text = (
        f"The intervals over {comparison.group}s and p-values are conditional on these trained "
        "models: they cover the choice of test images, not the variation between training runs. "
        "That is what the interval over seeds (±) shows"
    )
    base = next(row for row in comparison.rows if row.name == comparison.baseline)
    seeds = {
        row.name: len(row.difference.shared_seeds) or min(len(row.runs), len(base.runs))
        for row in comparison.rows
        if row.difference
    }
    few = {name: n for name, n in seeds.items() if n < FEW_SEEDS}
    if not few:
        return f"{text}."
    if len(few) < len(seeds):
        named = ", ".join(f"{name} ({n})" for name, n in few.items())
        return (
            f"{text}. A small p-value does not show that a row is better if its difference is over "
            f"fewer than {FEW_SEEDS} seeds: {named}."
        )
    low, high = min(few.values()), max(few.values())
    counts = (
        f"{low} to {high} seeds" if low < high else "one seed" if high == 1 else f"{high} seeds"
    )
    return (
        f"{text}. All differences are over only {counts}, so a small p-value does not show that a "
        "method is better."
    )


def interval(bounds: tuple[float, float] | None) -> str:
    return f"[{decimals(bounds[0])}, {decimals(bounds[1])}]" if bounds else ""


def plus_minus(mean: float, bounds: tuple[float, float] | None) -> str:
    return f"± {decimals(bounds[1] - mean)}" if bounds else ""


def number(estimate: Estimate | None, sign: bool = False) -> str:
    return decimals(estimate.mean, sign=sign) if estimate else NO_VALUE


def p_value(p: float) -> str:
    return decimals(p) if p >= 0.001 else "< 0.001"


def _column(name: str, title: str, group: str, estimate: Estimate | None) -> dict[str, str]:
    if name not in WITH_INTERVAL:
        return {title: number(estimate)}
    bounds = estimate.lesions if estimate else None
    return {f"{title} [{group}s]": f"{number(estimate)} {interval(bounds)}".strip()}


def _difference(difference: Difference | None, group: str) -> dict[str, str]:
    columns = difference_columns(group)
    if difference is None:
        return dict.fromkeys(columns, NO_VALUE)
    cells = (
        f"{decimals(difference.mean, sign=True)} {interval(difference.lesions)}".strip(),
        plus_minus(difference.mean, difference.seeds) or NO_VALUE,
        p_value(difference.p_holm),
        f"{difference.better} : {difference.worse}",
        p_value(difference.p_mcnemar_holm),
    )
    return dict(zip(columns, cells, strict=True))


def numbers(row: Row) -> dict[str, object]:
    """All metrics of a row with their intervals, its difference and its resources."""
    line: dict[str, object] = {"name": row.name, "seeds": len(row.runs)}
    for name, estimate in row.metrics.items():
        line[name] = estimate.mean
        for kind, bounds in (("seeds", estimate.seeds), ("lesions", estimate.lesions)):
            line |= {f"{name}_{kind}_{end}": v for end, v in ends(bounds)}
    if row.difference:
        record = asdict(row.difference)
        for kind in ("seeds", "lesions"):
            line |= {f"difference_{kind}_{end}": v for end, v in ends(record.pop(kind))}
        shared = ", ".join(map(str, record.pop("shared_seeds")))
        line |= {"difference_shared_seeds": shared}
        line |= {f"difference_{name}": value for name, value in record.items()}
    return line | asdict(resources(row.runs))


def ends(bounds: tuple[float, float] | None) -> list[tuple[str, float | None]]:
    """Both ends of an interval with their names."""
    low, high = bounds or (None, None)
    return [("low", low), ("high", high)]


def _cell(text: str) -> str:
    return str(text).replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")
