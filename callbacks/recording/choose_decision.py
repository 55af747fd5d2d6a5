"""The rule of a run, chosen when it is validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.console import decimals, in_words
from callbacks.errors import RunError
from callbacks.recording.decision import FILE, Decision, Rule, Validation, fit_temperature, outcome


class ChooseDecision(Callback):
    """Chooses a decision on the validation part, in ``validate``, and keeps it with the run.

    ``test`` and ``predict`` then report what it decides besides the probabilities.

    Args:
        rule: How it is chosen; none, and ``validate`` chooses nothing.
        temperature: Whether the probabilities are calibrated first, by one temperature, to the
            class frequencies of training.
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(
        self, rule: Rule | None = None, temperature: bool = True, dirpath: str = ""
    ) -> None:
        self.rule, self.temperature, self.dirpath = rule, temperature, Path(dirpath)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "validate" or self.rule is None or not trainer.is_global_zero:
            return
        metric: Any = pl_module.metrics["val"]  # type: ignore[index]
        computed = metric.compute()
        if not pl_module.diagnoses:
            raise RunError("A codec gives no diagnosis to decide on: take a run that classifies.")
        probability, label = computed["probability"].cpu(), computed["label"].cpu()
        counts = trainer.datamodule.class_counts  # type: ignore[attr-defined]
        temperature = fit_temperature(probability, label, counts) if self.temperature else 1.0
        plain = Decision(tuple(metric.class_names), temperature)
        seen = Validation(plain.calibrated(probability), label, metric.class_names, counts)
        decision = Decision(tuple(metric.class_names), temperature, **self.rule.choose(seen))
        decision.save(self.dirpath)
        values = outcome(decision(probability), label, metric.class_names)
        print(
            f"Chosen on validation, in {self.dirpath / FILE}: temperature {decimals(temperature)};"
        )
        print(in_words(values))
