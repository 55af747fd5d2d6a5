"""Reading of ``metrics.jsonl``, the logged metrics of a run, without torch and Lightning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
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

    lines = list(records(Path(path)))
    columns = dict.fromkeys(["attempt", "step", "epoch", "kind"])
    return pd.DataFrame(_uninterrupted(lines), columns=[*columns | dict.fromkeys(chain(*lines))])


def best_of(metric: str) -> Callable[..., float]:
    """``min`` for metrics that are better when lower, such as losses, else ``max``."""
    return min if metric.endswith(LOWER_IS_BETTER) else max


def best_values(path: str | Path) -> dict[str, float]:
    """The best value so far of each validation metric, by name; empty without a file."""
    if not Path(path).exists():
        return {}
    values: dict[str, list[float]] = {}
    for row in _uninterrupted(list(records(Path(path)))):
        for name, value in row.items():
            if name.startswith("val/") and not _is_missing(value):
                values.setdefault(name, []).append(value)
    return {name: best_of(name)(numbers) for name, numbers in values.items()}


def _uninterrupted(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per step and kind, sorted by both, of the attempt that counts."""
    superseded = _superseded_from(lines)
    merged: dict[tuple[int, str], dict[str, Any]] = {}
    for record in sorted(lines, key=lambda record: record["attempt"]):
        step, kind, attempt = record["step"], record["kind"], record["attempt"]
        if kind != "test" and step >= superseded[attempt]:
            continue
        row = merged.get((step, kind))
        if row is None or row["attempt"] < attempt:
            row = merged[step, kind] = {}
        row |= {k: v for k, v in record.items() if k not in row or not _is_missing(v)}
    return [merged[key] for key in sorted(merged)]


def _superseded_from(lines: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The first step of each attempt that a later attempt repeats; infinity if none does."""
    first_steps: dict[int, float] = {}
    for record in lines:
        first = first_steps.get(record["attempt"], math.inf)
        trained = record["step"] if record["kind"] == "train" else math.inf
        first_steps[record["attempt"]] = min(first, trained)
    superseded_from = {}
    repeated_from = math.inf  # by all later attempts
    for attempt in sorted(first_steps, reverse=True):
        superseded_from[attempt] = repeated_from
        repeated_from = min(repeated_from, first_steps[attempt])
    return superseded_from


def _is_missing(value: Any) -> bool:
    return value is None or value != value


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
