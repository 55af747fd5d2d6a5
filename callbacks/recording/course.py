"""How validation went over a training run, and what in it should make a reader doubt the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.console import decimals
from callbacks.recording.history import read_history

METRIC = "val/balanced_accuracy"
EARLY = 0.1  # share of the epochs
FAR = 2.0  # standard errors


def course(path: Path, images: Mapping[str, int]) -> dict[str, Any] | None:
    """Best and last epoch by validation balanced accuracy, with remarks.

    A remark is made if the best epoch is among the first tenth of the epochs, so that the best
    checkpoint has hardly been trained, and if the last epoch is below the best one by more than two
    standard errors of the latter, as in a collapse.

    Args:
        path: A run's ``metrics.jsonl``.
        images: Validation images of each class, by name.

    Returns:
        ``epochs`` validated, ``best_epoch`` and ``last_epoch`` from 0, ``best`` and ``last``
        balanced accuracy, and ``remarks``, sentences; None if nothing was validated.
    """
    history = read_history(path) if path.exists() else None
    if history is None or METRIC not in history:
        return None
    # A decision's validation, which is no part of the training, has step 0.
    trained = history[(history["kind"] == "val") & (history["step"] > 0)]
    validated = trained.dropna(subset=[METRIC])
    if validated.empty:
        return None
    best, last = validated.iloc[int(validated[METRIC].argmax())], validated.iloc[-1]
    found = {
        "epochs": len(validated),
        "best_epoch": int(best["epoch"]),
        "last_epoch": int(last["epoch"]),
        "best": float(best[METRIC]),
        "last": float(last[METRIC]),
    }
    error = standard_error({c: float(best.get(f"val/recall_{c}", np.nan)) for c in images}, images)
    return found | {"remarks": remarks(found, error)}


def remarks(found: Mapping[str, Any], error: float) -> list[str]:
    """What of a course is doubtful, given the standard error of its best value."""
    best, last, epochs = found["best_epoch"], found["last_epoch"], found["last_epoch"] + 1
    doubtful = []
    if best + 1 <= max(1, EARLY * epochs) and epochs > 1:
        doubtful.append(f"the best epoch is {best + 1} of {epochs}, in the first tenth")
    if found["best"] - found["last"] > FAR * error:
        doubtful.append(
            f"the last epoch ({last + 1}) has a validation balanced accuracy of "
            f"{decimals(found['last'])}, the best ({best + 1}) {decimals(found['best'])}"
        )
    return doubtful


def standard_error(recall: Mapping[str, float], images: Mapping[str, int]) -> float:
    """Standard error of balanced accuracy, the mean of the recalls of K classes with N_c images."""
    variances = [r * (1 - r) / images[c] for c, r in recall.items() if images[c]]
    return float(np.sqrt(sum(variances)) / max(1, len(variances)))
