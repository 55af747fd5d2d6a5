"""Choice of a run's decision rule on the validation split."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer

from callbacks.console import decimals, in_words
from callbacks.errors import RunError
from callbacks.recording.decision import (
    Decision,
    Rule,
    Validation,
    fit_temperature,
    outcome,
)
from callbacks.run_callback import RunCallback
from callbacks.run_folder import DECISION as DECISION_FILE


class ChooseDecision(RunCallback):
    """Choose a decision on the validation split, in ``validate``.

    The decision is saved as ``decision.json`` in the run folder. ``test`` and ``predict`` then
    report the decided classes besides the probabilities.

    Args:
        rule: Rule that chooses the decision; None chooses nothing.
        temperature: Whether the probabilities are calibrated first, by one temperature, to the
            class frequencies of training.
        dirpath: Run folder; set by the command line.
    """

    def __init__(
        self, rule: Rule | None = None, temperature: bool = True, dirpath: str = ""
    ) -> None:
        super().__init__(dirpath)
        self.rule = rule
        self.temperature = temperature

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "validate" or self.rule is None or not trainer.is_global_zero:
            return
        metric = self.metric(pl_module, "val")
        computed = metric.compute()
        if not pl_module.diagnoses:
            raise RunError("A codec has no class probabilities to decide on: use a classifier.")
        probability, label = computed["probability"].cpu(), computed["label"].cpu()
        data = self.data(trainer)
        images = int((data.table["split"] == "val").sum())
        if len(label) < images:
            raise RunError(
                f"No decision was chosen: {len(label)} of {images} validation images were scored. "
                "Leave out --trainer.limit_val_batches, or set it to 1.0."
            )
        counts = data.class_counts
        temperature = fit_temperature(probability, label, counts) if self.temperature else 1.0
        classes = tuple(metric.class_names)
        calibrated = Decision(classes, temperature).calibrated(probability)
        chosen = self.rule.choose(Validation(calibrated, label, classes, counts))
        decision = Decision(classes, temperature, **chosen)
        decision.save(self.folder)
        file = self.folder / DECISION_FILE
        print(
            f"Decision chosen on the validation split: {file}, temperature {decimals(temperature)}"
        )
        print(in_words(outcome(decision(probability), label, classes)))
