"""Tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
from rich.console import Console
from rich.table import Table

NOTHING = "-"
LARGE = 1e12


def decimals(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number as every table, page and sentence shows it: half is rounded up, as by hand.

    Args:
        value: NaN is a dash.
        digits: Digits behind the point.
        sign: Whether positive numbers have a sign, too.
    """
    if math.isnan(value):
        return NOTHING
    if abs(value) >= LARGE:
        return f"{value:g}"
    # Of its shortest decimal: a binary fraction may lie below the half that it stands for.
    number = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0
    return f"{number:+f}" if sign else f"{number:f}"


def print_table(frame: pd.DataFrame, title: str, summary: bool = True) -> None:
    """Prints ``frame`` under ``title``; the last row is set off if it is a summary."""
    table = Table()
    for i, column in enumerate(frame):
        table.add_column(str(column), justify="right" if i else "left")
    for i, row in enumerate(frame.itertuples(index=False)):
        cells = [decimals(cell) if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(*cells, end_section=summary and i == len(frame) - 2)
    print(title)  # not the table's own, which wraps at its width
    Console().print(table)


def in_words(values: Mapping[str, float]) -> str:
    """``balanced accuracy 0.532, macro f1 0.492``."""
    return ", ".join(f"{name.replace('_', ' ')} {decimals(x)}" for name, x in values.items())
