"""Choice of a run's decision rule and prediction sets on the validation split."""

from __future__ import annotations

from dataclasses import replace

import torch
from pytorch_lightning import LightningModule, Trainer

from callbacks.console import decimals, in_words
from callbacks.errors import RunError
from callbacks.recording.abstention import threshold_of_risk, threshold_of_share
from callbacks.recording.decision import (
    ArgMax,
    Decision,
    Rule,
    Validation,
    fit_temperature,
    outcome,
)
from callbacks.recording.lesions import Array, lesion_numbers, share
from callbacks.recording.sets import Conformal, PredictionSets
from callbacks.run_callback import RunCallback
from callbacks.run_folder import DECISION as DECISION_FILE
from callbacks.run_folder import SETS as SETS_FILE


class ChooseDecision(RunCallback):
    """Choose a decision and prediction sets on the validation split, in ``validate``.

    The decision is saved as ``decision.json`` in the run folder, prediction sets as ``sets.json``.
    ``test`` and ``predict`` then report decided classes and sets besides the probabilities.

    Args:
        rule: Rule that chooses the decision; None keeps the run's decision.
        temperature: Whether the probabilities are calibrated first, by one temperature, to the
            class frequencies of training.
        sets: Method that chooses prediction sets; None keeps those of the run.
        max_risk: Share of wrong decisions at which the decision abstains from the least confident
            images, in [0, 1); see :func:`~callbacks.recording.abstention.threshold_of_risk`.
        min_share: Share of the validation lesions that is decided, in (0, 1]; the decision abstains
            from the others. At most one of ``max_risk`` and ``min_share`` is given. Without a rule
            they are for the run's decision, or else for the most likely class.
        dirpath: Run folder; set by the command line.
    """

    def __init__(
        self,
        rule: Rule | None = None,
        temperature: bool = True,
        sets: Conformal | None = None,
        max_risk: float | None = None,
        min_share: float | None = None,
        dirpath: str = "",
    ) -> None:
        super().__init__(dirpath)
        if max_risk is not None and min_share is not None:
            raise RunError(
                "RISK= (--risk) and SHARE= (--share) each set the threshold of the confidence: "
                "give one of them."
            )
        self.rule = rule
        self.temperature = temperature
        self.sets = sets
        self.max_risk = max_risk
        self.min_share = min_share

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "validate" or not trainer.is_global_zero:
            return
        if not (self.decides or self.sets):
            return
        metric = self.metric(pl_module, "val")
        computed = metric.compute()
        if not pl_module.diagnoses:
            raise RunError(
                "This run predicts no classes to decide on: use the run of a classifier."
            )
        table = self.data(trainer).table
        probability, label = computed["probability"].cpu(), computed["label"].cpu()
        images = int((table["split"] == "val").sum())
        if len(label) < images:
            raise RunError(
                f"No decision was chosen: {len(label)} of {images} validation images were scored. "
                "Leave out --trainer.limit_val_batches, or set it to 1.0."
            )
        lesion = lesion_numbers(table.loc[computed["index"].tolist()])
        counts = self.data(trainer).class_counts
        seen = Validation(probability, label, tuple(metric.class_names), counts)
        if self.decides:
            self.choose_decision(seen, lesion)
        if self.sets:
            checkpoint = self.checkpoint(trainer)
            self.choose_sets(self.sets, seen, lesion, checkpoint["step"] if checkpoint else None)

    @property
    def decides(self) -> bool:
        """Whether a decision is chosen, or a threshold of its confidence."""
        return not (self.rule is None and self.max_risk is None and self.min_share is None)

    def choose_decision(self, seen: Validation, lesion: Array) -> None:
        """Choose and save the decision.

        Args:
            seen: The validation images, with the probabilities of the network.
            lesion: Number of each image's lesion, from 0 (N,).
        """
        probability, label, classes, counts = seen
        decision = None if self.rule else Decision.load(self.folder, classes)
        if decision is None:
            t = fit_temperature(probability, label, counts) if self.temperature else 1.0
            decision = Decision(tuple(classes), t)
            calibrated = seen._replace(probability=decision.calibrated(probability))
            decision = replace(decision, **(self.rule or ArgMax()).choose(calibrated))
        wrong = (decision(probability) != label).numpy()
        confidence = decision.confidence(probability).numpy()
        threshold = None
        if self.max_risk is not None:
            threshold = threshold_of_risk(confidence, wrong, lesion, self.max_risk)
        elif self.min_share is not None:
            threshold = threshold_of_share(confidence, lesion, self.min_share)
        decision = replace(decision, threshold=threshold)
        decision.save(self.folder)
        print(
            f"Decision chosen on the validation split: {self.folder / DECISION_FILE}, temperature "
            f"{decimals(decision.temperature)}"
        )
        print(in_words(outcome(decision(probability), label, classes)))
        if threshold is not None:
            confident = decision.confident(probability).numpy()
            print(
                f"It abstains below a confidence of {decimals(threshold)}: "
                f"{decimals(share(confident, lesion).value)} of the validation lesions are "
                f"decided, with risk {decimals(share(wrong, lesion, confident).value)}."
            )

    def choose_sets(
        self, method: Conformal, seen: Validation, lesion: Array, step: int | None
    ) -> None:
        """Choose and save the prediction sets.

        Args:
            method: Method that chooses the thresholds.
            seen: The validation images, with the probabilities of the network.
            lesion: Number of each image's lesion, from 0 (N,).
            step: Optimizer steps of the checkpoint.
        """
        probability, label, classes, counts = seen
        minimum = method.minimum(probability, label, torch.from_numpy(lesion), counts).tolist()
        kind = type(method).__name__
        sets = PredictionSets(tuple(classes), kind, method.coverage, tuple(minimum), step)
        sets.save(self.folder)
        print(
            f"Prediction sets chosen on the {lesion.max() + 1} lesions of the validation split: "
            f"{self.folder / SETS_FILE}"
        )
        print(method.guarantee.format(coverage=f"{method.coverage:g}"))
        if always := [name for name, t in zip(classes, minimum, strict=True) if t == 0]:
            print(f"In every set, mostly because of too few lesions: {', '.join(always)}.")
