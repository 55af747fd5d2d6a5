"""Reading of ``metrics.jsonl``, the logged metrics of a run, without torch and Lightning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LOWER_IS_BETTER = ("loss", "brier", "nll", "ece", "aurc", "mae", "bits_per_pixel")


def read_history(path: str | Path) -> pd.DataFrame:
    """Read the metrics of a run as if it had never been interrupted.

    A resumed attempt repeats the steps that the earlier attempt took after its last checkpoint; the
    earlier rows of these steps are dropped. An attempt resumed where its first training step is, so
    that testing or validating a finished run drops nothing.

    Args:
        path: Path of a ``metrics.jsonl``.

    Returns:
        One row per ``step`` and ``kind`` ("train", "val" or "test"), sorted by both, with
        ``attempt``, ``epoch`` and a column per metric, NaN where it was not logged.
    """
    import pandas as pd

    columns = ["attempt", "step", "epoch", "kind"]
    rows = pd.DataFrame(list(records(Path(path))))
    if rows.empty:
        return pd.DataFrame(columns=columns)
    is_test = rows["kind"] == "test"
    rows = rows[is_test | (rows["step"] < rows["attempt"].map(_superseded_from(rows)))]
    rows = rows[rows["attempt"] == rows.groupby(["step", "kind"])["attempt"].transform("max")]
    merged = rows.groupby(["step", "kind"], as_index=False).last()
    return merged[columns + [name for name in merged.columns if name not in columns]]


def best_of(metric: str) -> Callable[..., float]:
    """``min`` for metrics that are better when lower, such as losses, else ``max``."""
    return min if metric.endswith(LOWER_IS_BETTER) else max


def best_values(path: str | Path) -> dict[str, float]:
    """The best value so far of each validation metric, by name; empty without a file."""
    if not Path(path).exists():
        return {}
    val = read_history(path).filter(like="val/")
    return {name: getattr(val[name], best_of(name).__name__)() for name in map(str, val)}


def _superseded_from(rows: pd.DataFrame) -> dict[int, float]:
    """The first step of each attempt that a later attempt repeats; infinity if none does."""
    first_steps = rows[rows["kind"] == "train"].groupby("attempt")["step"].min()
    superseded_from = {}
    repeated_from = math.inf  # by all later attempts
    for attempt in sorted(rows["attempt"].unique(), reverse=True):
        superseded_from[attempt] = repeated_from
        repeated_from = min(repeated_from, first_steps.get(attempt, math.inf))
    return superseded_from


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the readable lines; a kill during a write leaves an unreadable one."""
    with path.open(errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            numbers = {key: float(v) if isinstance(v, str) else v for key, v in record.items()}
            yield numbers | {"kind": _kind(record)}


def _kind(record: Mapping[str, Any]) -> str:
    prefixes = {key.split("/")[0] for key in record}
    return next((kind for kind in ("val", "test") if kind in prefixes), "train")
