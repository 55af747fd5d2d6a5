"""Tables and numbers on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

NO_VALUE = "-"
SCIENTIFIC_FROM = 1e12


def decimals(value: float, digits: int = 3, sign: bool = False) -> str:
    """Format a number as all tables, pages and sentences do; halves are rounded up.

    Args:
        value: Number to format; NaN becomes a dash.
        digits: Number of digits after the decimal point.
        sign: Whether positive numbers get a plus sign.
    """
    if math.isnan(value):
        return NO_VALUE
    if abs(value) >= SCIENTIFIC_FROM:
        return f"{value:g}"
    # From its shortest decimal: the binary fraction may lie just below the half it stands for.
    number = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0
    return f"{number:+f}" if sign else f"{number:f}"


def print_table(frame: pd.DataFrame, title: str, summary: bool = True) -> None:
    """Print a table below its title.

    Args:
        frame: Table to print.
        title: Line above the table.
        summary: Whether the last row is a summary, set off by a line.
    """
    table = Table()
    for i, column in enumerate(frame):
        table.add_column(escape(str(column)), justify="right" if i else "left")
    for i, row in enumerate(frame.itertuples(index=False)):
        cells = [decimals(cell) if isinstance(cell, float) else escape(str(cell)) for cell in row]
        table.add_row(*cells, end_section=summary and i == len(frame) - 2)
    print(title)  # the table's own title would wrap at the table's width
    Console().print(table)


def in_words(values: Mapping[str, float]) -> str:
    """Format named values as ``balanced accuracy 0.532, macro f1 0.492``."""
    return ", ".join(f"{name.replace('_', ' ')} {decimals(x)}" for name, x in values.items())
