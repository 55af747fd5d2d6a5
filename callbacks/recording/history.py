"""The metrics of a run in a local file, complete whatever happens to W&B."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

METRICS = "metrics.jsonl"  # as in run_folder.py, which reads it by this module


LOWER_IS_BETTER = ("loss", "brier", "nll", "ece", "aurc", "mae", "bits_per_pixel")


class History(Logger):
    """Append all logged metrics to ``metrics.jsonl`` in the run folder, one line per call.

    A line reads ``{"attempt": 1, "step": 19, "epoch": 0, "train/loss": 1.2}``. The file is never
    rewritten: a resumed run appends to it as the next attempt. NaN and infinite numbers become the
    strings "nan", "inf" and "-inf". Keep this logger first in the list of loggers, so that an error
    in another logger cannot lose a line.

    Args:
        save_dir: Run folder; set by the command line.
    """

    def __init__(self, save_dir: str | Path = ".") -> None:
        super().__init__()
        self.path = Path(save_dir, METRICS)
        self._attempt: int | None = None

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self._attempt is None:
            self._attempt = self._begin()
        scalars = {key: _to_json(value) for key, value in metrics.items() if key != "epoch"}
        head = {"attempt": self._attempt, "step": step or 0, "epoch": metrics.get("epoch")}
        with self.path.open("a") as file:  # closed, hence flushed, line by line
            file.write(json.dumps(head | scalars, allow_nan=False) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Do nothing: ``config.yaml`` in the run folder holds the options."""

    def _begin(self) -> int:
        """Number this attempt, and end a line that a killed attempt left incomplete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read() != b"\n":
                    file.write(b"\n")
        return 1 + max((record["attempt"] for record in _records(self.path)), default=0)


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
    columns = ["attempt", "step", "epoch", "kind"]
    rows = pd.DataFrame(list(_records(Path(path))))
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


def _records(path: Path) -> Iterator[dict[str, Any]]:
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


def _to_json(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)
