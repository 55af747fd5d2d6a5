"""Time and memory that the training runs of a row took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.compare.runs import TestedRun

RECORDED = ("seconds", "images_per_second", "memory_gb")


@dataclass(frozen=True)
class Resources:
    """Medians over epochs and means over seeds; NaN if nothing was recorded.

    Args:
        parameters: Number of parameters of the network.
        epochs: Number of epochs trained.
        seconds_per_epoch: Median time of an epoch in seconds, without validation.
        images_per_second: Median throughput.
        memory_gb: Peak memory of any seed, in units of 10^9 bytes.
        hours: Training time of one seed in hours, without validation.
    """

    parameters: int
    epochs: float
    seconds_per_epoch: float
    images_per_second: float
    memory_gb: float
    hours: float


def resources(runs: tuple[TestedRun, ...]) -> Resources:
    """Resources that a row's runs took."""
    per_run = [_measured_epochs(run.history) for run in runs]
    measured = pd.concat(per_run)
    epochs = [run.epochs for run in runs if run.epochs]
    seconds = float(measured["seconds"].median())
    # An interrupted epoch is not measured: assume that it took as long as the others.
    total = [
        table["seconds"].sum() + (run.epochs - table["seconds"].count()) * seconds
        for table, run in zip(per_run, runs, strict=True)
        if run.epochs
    ]
    return Resources(
        parameters=runs[0].parameters,
        epochs=float(np.mean(epochs)) if epochs else np.nan,
        seconds_per_epoch=seconds,
        images_per_second=float(measured["images_per_second"].median()),
        memory_gb=float(measured["memory_gb"].max()),
        hours=float(np.mean(total)) / 3600 if total else np.nan,
    )


def _measured_epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Seconds, images per second and memory of each epoch that was measured."""
    names = {f"resources/{name}": name for name in RECORDED}
    return history.reindex(columns=list(names)).rename(columns=names).astype(float).dropna()
