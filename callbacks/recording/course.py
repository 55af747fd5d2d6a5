"""Course of the validation over a run, with remarks on what makes the result doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.console import decimals
from callbacks.recording.metrics_file import read_history

BALANCED_ACCURACY = "val/balanced_accuracy"
EARLY_SHARE = 0.1  # of the epochs
MIN_EPOCHS = 10  # shorter runs have no first tenth
FAR_BELOW = 2.0  # in standard errors


def course(path: Path, images: Mapping[str, int]) -> dict[str, Any] | None:
    """The best and the last epoch by validation balanced accuracy, with remarks.

    There are two remarks: the best epoch is in the first tenth of at least ten epochs, so that the
    best checkpoint has hardly been trained; the last epoch is more than two standard errors below
    the best one, as after a collapse.

    Args:
        path: Path of the run's ``metrics.jsonl``.
        images: Number of validation images by class name.

    Returns:
        ``epochs`` (number of validated epochs), ``best_epoch`` and ``last_epoch`` (from 0),
        ``best`` and ``last`` (balanced accuracy), and ``remarks`` (sentences); None if no epoch was
        validated.
    """
    history = read_history(path) if path.exists() else None
    if history is None or BALANCED_ACCURACY not in history:
        return None
    # Step 0 is the validation on which a decision was chosen, after training.
    trained = history[(history["kind"] == "val") & (history["step"] > 0)]
    validated = trained.dropna(subset=[BALANCED_ACCURACY])
    if validated.empty:
        return None
    best, last = validated.iloc[int(validated[BALANCED_ACCURACY].argmax())], validated.iloc[-1]
    summary = {
        "epochs": len(validated),
        "best_epoch": int(best["epoch"]),
        "last_epoch": int(last["epoch"]),
        "best": float(best[BALANCED_ACCURACY]),
        "last": float(last[BALANCED_ACCURACY]),
    }
    error = standard_error({c: float(best.get(f"val/recall_{c}", np.nan)) for c in images}, images)
    return summary | {"remarks": remarks(summary, error)}


def remarks(summary: Mapping[str, Any], error: float) -> list[str]:
    """The remarks on a course, given the standard error of its best value."""
    best, last, epochs = summary["best_epoch"], summary["last_epoch"], summary["last_epoch"] + 1
    sentences = []
    if epochs >= MIN_EPOCHS and best + 1 <= EARLY_SHARE * epochs:
        sentences.append(f"the best epoch is {best + 1} of {epochs}, in the first tenth")
    if summary["best"] - summary["last"] > FAR_BELOW * error:
        sentences.append(
            f"the last epoch ({last + 1}) has a validation balanced accuracy of "
            f"{decimals(summary['last'])}, the best ({best + 1}) {decimals(summary['best'])}"
        )
    return sentences


def standard_error(recall: Mapping[str, float], images: Mapping[str, int]) -> float:
    """Standard error of balanced accuracy, the mean of the recalls of K classes with N_c images."""
    variances = [r * (1 - r) / images[c] for c, r in recall.items() if images[c]]
    return float(np.sqrt(sum(variances)) / max(1, len(variances)))
