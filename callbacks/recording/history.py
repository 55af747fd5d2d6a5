"""The metrics of a run in a local file, complete whatever happens to W&B."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from callbacks.recording.metrics_file import records
from callbacks.run_folder import METRICS


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
        return 1 + max((record["attempt"] for record in records(self.path)), default=0)


def _to_json(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)
