"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich.console import Console
from rich.table import Table


def print_table(frame: pd.DataFrame, title: str, summary: bool = True) -> None:
    """Prints ``frame`` under ``title``; the last row is set off if it is a summary."""
    table = Table()
    for i, column in enumerate(frame):
        table.add_column(str(column), justify="right" if i else "left")
    for i, row in enumerate(frame.itertuples(index=False)):
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(*cells, end_section=summary and i == len(frame) - 2)
    print(title)  # not the table's own, which wraps at its width
    Console().print(table)


def in_words(values: Mapping[str, float]) -> str:
    """``balanced accuracy 0.532, macro f1 0.492``."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
