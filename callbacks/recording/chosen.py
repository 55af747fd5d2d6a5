"""The rules that a run chose on its validation split, applied to other images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from callbacks.console import decimals, in_words
from callbacks.recording.abstention import measure
from callbacks.recording.decision import Decision, outcome
from callbacks.recording.lesions import Array
from callbacks.recording.sets import PredictionSets
from callbacks.run_folder import DECISION as DECISION_FILE
from callbacks.run_folder import SETS as SETS_FILE


@dataclass(frozen=True)
class Chosen:
    """Decision and prediction sets of a run; None is what was not chosen."""

    decision: Decision | None
    sets: PredictionSets | None

    @classmethod
    def load(cls, folder: Path, classes: list[str], step: int | None) -> Chosen:
        """Load what was chosen for a run.

        Args:
            folder: Run folder.
            classes: Names of the classes of the run.
            step: Optimizer steps of the checkpoint in use; None if unknown.

        Raises:
            RunError: A file is damaged, or for other classes or another checkpoint.
        """
        decision = Decision.load(folder, classes)
        return cls(decision, PredictionSets.load(folder, classes, step))

    def columns(self, probability: Tensor) -> pd.DataFrame:
        """Columns for N images, from the network's probabilities (N, K).

        ``decision`` is a class name, ``set`` class names separated by spaces. A decision that
        abstains adds ``confidence`` and whether it is ``confident``.
        """
        columns: dict[str, Any] = {}
        if self.decision:
            names = self.decision.classes
            columns["decision"] = [names[c] for c in self.decision(probability).tolist()]
            if self.decision.threshold is not None:
                columns["confidence"] = self.decision.confidence(probability).numpy()
                columns["confident"] = self.decision.confident(probability).numpy()
        if self.sets:
            columns["set"] = self.sets.names(probability)
        return pd.DataFrame(columns, index=range(len(probability)))

    def measure(self, probability: Tensor, label: Tensor, lesion: Array) -> dict[str, Any]:
        """Results on N images, and a line on the terminal for each.

        Args:
            probability: Probabilities of the network (N, K).
            label: True classes (N,).
            lesion: Number of each image's lesion, from 0 (N,).

        Returns:
            ``decided``, see :func:`~callbacks.recording.decision.outcome`; ``abstention``, see
            :func:`~callbacks.recording.abstention.measure`; ``sets``, see
            :meth:`~callbacks.recording.sets.PredictionSets.measure`. None is what was not chosen.
        """
        found: dict[str, Any] = dict.fromkeys(("decided", "abstention", "sets"))
        if self.decision:
            decided, classes = self.decision(probability), self.decision.classes
            found["decided"] = outcome(decided, label, classes)
            print(f"With {DECISION_FILE}: {in_words(found['decided'])}")
            if self.decision.threshold is not None:
                confident = self.decision.confident(probability).numpy()
                wrong = (decided != label).numpy()
                selected = measure(confident, wrong, label.numpy(), lesion, classes)
                found["abstention"] = {"threshold": self.decision.threshold, **selected}
                print(f"Abstaining: {_with_intervals(selected, 'share', 'risk', 'balanced_risk')}")
        if self.sets:
            found["sets"] = self.sets.measure(probability, label, lesion)
            low, high = map(decimals, found["sets"]["interval"])
            sizes = in_words({k: found["sets"][k] for k in ("size", "singletons", "empty")})
            coverage = decimals(found["sets"]["coverage"])
            print(f"With {SETS_FILE}: coverage {coverage} [{low}, {high}], {sizes}")
        return found


def _with_intervals(values: dict[str, Any], *names: str) -> str:
    described = []
    for name in names:
        low, high = map(decimals, values[f"{name}_interval"])
        described.append(f"{in_words({name: values[name]})} [{low}, {high}]")
    return ", ".join(described)
