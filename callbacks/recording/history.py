"""A run's metrics in a file of its own, complete whatever happens to the dashboard."""

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

LOWER_IS_BETTER = ("loss", "ece", "mae", "bits_per_pixel")


class History(Logger):
    """Appends every logged metric to ``metrics.jsonl`` in the run folder, one line per call.

    A line reads ``{"attempt": 1, "step": 19, "epoch": 0, "train/loss": 1.2}``. The file is never
    rewritten: a run that is interrupted and resumed goes on in it as its next attempt. Numbers
    that JSON does not have are the strings "nan", "inf" and "-inf". Stands first in the list of
    loggers, so that no other logger can keep a line from it.

    Args:
        save_dir: The run folder; the command line fills it in.
    """

    def __init__(self, save_dir: str | Path = ".") -> None:
        super().__init__()
        self.path = Path(save_dir, "metrics.jsonl")
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
        """``config.yaml`` beside the file has them."""

    def _begin(self) -> int:
        """The number of this attempt; ends a line that a killed attempt left half-written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read() != b"\n":
                    file.write(b"\n")
        return 1 + max((record["attempt"] for record in _records(self.path)), default=0)


def read_history(path: str | Path) -> pd.DataFrame:
    """A run's metrics as if it had never been interrupted.

    An attempt trains again the steps that an earlier one took beyond the checkpoint; the earlier
    rows of these steps are dropped. The first training step of an attempt tells where it resumed:
    to score or to validate a finished run replaces nothing of its training.

    Args:
        path: A ``metrics.jsonl``.

    Returns:
        One row per ``step`` and ``kind`` ("train", "val" or "test"), sorted by both, with
        ``attempt``, ``epoch`` and a column per metric, NaN where it was not logged.
    """
    columns = ["attempt", "step", "epoch", "kind"]
    rows = pd.DataFrame(list(_records(Path(path))))
    if rows.empty:
        return pd.DataFrame(columns=columns)
    scores = rows["kind"] == "test"
    rows = rows[scores | (rows["step"] < rows["attempt"].map(_superseded_from(rows)))]
    rows = rows[rows["attempt"] == rows.groupby(["step", "kind"])["attempt"].transform("max")]
    merged = rows.groupby(["step", "kind"], as_index=False).last()
    return merged[columns + [name for name in merged.columns if name not in columns]]


def best_of(metric: str) -> Callable[..., float]:
    """``min`` for losses and calibration errors, ``max`` for what else is validated."""
    return min if metric.endswith(LOWER_IS_BETTER) else max


def best_values(path: str | Path) -> dict[str, float]:
    """The best value so far of each validation metric by name; none without a file."""
    if not Path(path).exists():
        return {}
    val = read_history(path).filter(like="val/")
    return {name: getattr(val[name], best_of(name).__name__)() for name in map(str, val)}


def _superseded_from(rows: pd.DataFrame) -> pd.Series[float]:
    """Per attempt, the first step that any later attempt trained again; infinity if none did."""
    first = rows[rows["kind"] == "train"].groupby("attempt")["step"].min()
    first = first.reindex(sorted(rows["attempt"].unique()))
    return first[::-1].cummin().ffill()[::-1].shift(-1).fillna(math.inf)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that can be read; a kill in mid-write leaves one that cannot."""
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
