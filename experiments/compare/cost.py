"""What the trainings of a row took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.compare.runs import Run


@dataclass(frozen=True)
class Cost:
    """Medians over epochs and means over seeds; NaN where nothing was recorded.

    Args:
        parameters: Of the network.
        epochs: Trained.
        seconds_per_epoch: Median, validation not counted.
        images_per_second: Median.
        memory_gb: The most that a seed held, in units of 10^9 bytes.
        hours: Training of one seed, validation not counted.
    """

    parameters: int
    epochs: float
    seconds_per_epoch: float
    images_per_second: float
    memory_gb: float
    hours: float


def cost(runs: tuple[Run, ...]) -> Cost:
    """The cost of a row's runs."""
    each = [_epochs(run.history) for run in runs]
    measured = pd.concat(each)
    epochs = [run.history["epoch"].max() + 1 for run in runs if "epoch" in run.history]
    seconds = float(measured["seconds"].median())
    # An epoch that was interrupted is not measured: it took what the others did.
    total = [
        one["seconds"].sum() + (count - one["seconds"].count()) * seconds
        for one, count in zip(each, epochs, strict=False)
    ]
    return Cost(
        parameters=runs[0].parameters,
        epochs=float(np.mean(epochs)) if epochs else np.nan,
        seconds_per_epoch=seconds,
        images_per_second=float(measured["images_per_second"].median()),
        memory_gb=float(measured["memory_gb"].max()),
        hours=float(np.mean(total)) / 3600 if total else np.nan,
    )


def _epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Seconds, images per second and memory of each epoch that was measured."""
    names = {f"cost/{name}": name for name in ("seconds", "images_per_second", "memory_gb")}
    return history.reindex(columns=list(names)).rename(columns=names).astype(float).dropna()
