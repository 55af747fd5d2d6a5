"""The comparison as a table: on the terminal, in Markdown, and with everything in a CSV."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from callbacks.console import NOTHING, decimals
from experiments.compare.comparison import Comparison
from experiments.compare.cost import cost
from experiments.compare.rows import Difference, Estimate, Row

SHOWN = {
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
    "bits_per_pixel": "bits per pixel",
    "values_ratio": "values, original to latent",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
AGAINST = ("difference [lesions]", "p (Holm)", "lesions better : worse", "p McNemar (Holm)")
WIDE = 160  # of a file, which does not wrap


def compact(comparison: Comparison) -> pd.DataFrame:
    """What a README shows of each row, as text: means, with both intervals of the first metric."""
    known = {name for row in comparison.rows for name in row.metrics}
    shown = {name: title for name, title in SHOWN.items() if name in known}
    lines = []
    for row in comparison.rows:
        first = row.metrics["balanced_accuracy"]
        line = {
            "name": row.name,
            "seeds": str(len(row.runs)),
            "balanced accuracy [lesions]": f"{number(first)} {interval(first.lesions)}".strip(),
            "over seeds": plus_minus(first),
        }
        for name, title in list(shown.items())[1:]:
            line[title] = number(row.metrics.get(name))
        if comparison.baseline:
            line |= _against(row.difference)
        lines.append(line)
    return pd.DataFrame(lines)


def everything(comparison: Comparison) -> pd.DataFrame:
    """Every metric with its intervals, the differences and the cost, as numbers."""
    return pd.DataFrame([_numbers(row) for row in comparison.rows])


def markdown(comparison: Comparison) -> str:
    """The compact table and what must be known of it."""
    table = compact(comparison)
    alignment = ["---", *["---:"] * (table.shape[1] - 1)]
    lines = [list(map(str, table)), alignment, *table.to_numpy().tolist()]
    rows = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
    return "\n".join([*rows, "", *legend(comparison)]) + "\n"


def show(comparison: Comparison) -> None:
    """Prints the compact table, in two parts where there is a baseline."""
    frame, console = compact(comparison), Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    parts = [[str(c) for c in frame if c not in AGAINST], ["name", *AGAINST]]
    for columns in parts if comparison.baseline else parts[:1]:
        table = Table(box=box.SIMPLE)
        for i, column in enumerate(columns):
            table.add_column(escape(column), justify="right" if i else "left", overflow="fold")
        for row in frame[columns].itertuples(index=False):
            table.add_row(*[escape(str(cell)) for cell in row])
        console.print(table)
    for line in legend(comparison):
        console.print(escape(line), highlight=False)


def legend(comparison: Comparison) -> list[str]:
    """Whose images these are, and how the intervals were made, in plain words."""
    lines = ["SYNTHETIC DATA: these lesions are drawn."] if comparison.synthetic else []
    resamples, images = comparison.weight.shape
    lines.append(
        f"{images} test images of {comparison.rows[0].runs[0].lesion.max() + 1} lesions. In "
        f"brackets: 95 % interval over {resamples} resamples of the lesions, drawn within each "
        "class, the same for all."
    )
    lines.append("After ±: half of the 95 % Student t interval over seeds.")
    if any("natural_accuracy" in row.metrics for row in comparison.rows):
        lines.append("Natural accuracy: recalls weighted as often as the data set has their class.")
    if comparison.baseline:
        lines.append(
            f"Differences in balanced accuracy from {comparison.baseline}, paired over the same "
            "resamples. McNemar's exact test is of accuracy: on lesions that one has right more "
            "often than the other, over images and seeds. P values are Holm's for all rows."
        )
    return [*lines, *comparison.notes]


def interval(bounds: tuple[float, float] | None) -> str:
    return f"[{decimals(bounds[0])}, {decimals(bounds[1])}]" if bounds else ""


def plus_minus(estimate: Estimate) -> str:
    return f"± {decimals(estimate.seeds[1] - estimate.mean)}" if estimate.seeds else "one seed"


def number(estimate: Estimate | None) -> str:
    return decimals(estimate.mean) if estimate else NOTHING


def p_value(p: float) -> str:
    return decimals(p) if p >= 0.001 else "< 0.001"


def _against(difference: Difference | None) -> dict[str, str]:
    if difference is None:
        return dict.fromkeys(AGAINST, NOTHING)
    cells = (
        f"{decimals(difference.mean, sign=True)} {interval(difference.lesions)}".strip(),
        p_value(difference.p_holm),
        f"{difference.better} : {difference.worse}",
        p_value(difference.p_mcnemar_holm),
    )
    return dict(zip(AGAINST, cells, strict=True))


def _numbers(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"name": row.name, "seeds": len(row.runs)}
    for name, estimate in row.metrics.items():
        line[name] = estimate.mean
        for kind, bounds in (("seeds", estimate.seeds), ("lesions", estimate.lesions)):
            line |= {f"{name}_{kind}_{end}": v for end, v in _ends(bounds)}
    if row.difference:
        record = asdict(row.difference)
        line |= {f"difference_lesions_{end}": v for end, v in _ends(record.pop("lesions"))}
        line |= {f"difference_{name}": value for name, value in record.items()}
    return line | asdict(cost(row.runs))


def _ends(bounds: tuple[float, float] | None) -> list[tuple[str, float | None]]:
    low, high = bounds or (None, None)
    return [("low", low), ("high", high)]


def _cell(text: str) -> str:
    return str(text).replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")
