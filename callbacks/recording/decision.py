"""Decisions from probabilities, by a rule that is chosen on the validation split."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from callbacks.atomic_files import write_json
from callbacks.errors import RunError, reason
from callbacks.run_folder import DECISION as DECISION_FILE

MIN_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Decision:
    """Decision argmin_k sum_j q_j C_jk, with q = softmax(log p / T + b).

    Args:
        classes: Names of the K classes.
        temperature: Temperature T, above 0; above 1 the probabilities become less confident.
        offsets: Logit offsets b (K,), which express logit adjustment and thresholds; empty is 0.
        costs: Costs C (K, K) of deciding class k (column) where class j (row) is true. None is 0/1
            costs, with which the decision is the arg-max.
        threshold: Confidence below which the decision abstains; None never abstains.
    """

    classes: tuple[str, ...]
    temperature: float = 1.0
    offsets: tuple[float, ...] = ()
    costs: tuple[tuple[float, ...], ...] | None = None
    threshold: float | None = None

    def calibrated(self, probability: Tensor) -> Tensor:
        """Calibrated probabilities softmax(log p / T), from probabilities (B, K)."""
        return (log(probability) / self.temperature).softmax(1)

    def __call__(self, probability: Tensor) -> Tensor:
        """Decided classes (B,), from the network's probabilities (B, K)."""
        if self.costs is None:
            return self._scores(probability).argmax(1)
        return self.expected_cost(probability).argmin(1)

    def expected_cost(self, probability: Tensor) -> Tensor:
        """Expected cost (B, K) of deciding each class, from the network's probabilities (B, K)."""
        q = self._scores(probability).softmax(1)
        return 1 - q if self.costs is None else q @ q.new_tensor(self.costs)

    def confidence(self, probability: Tensor) -> Tensor:
        """Confidence q_d of the decided class d (B,), from the network's probabilities (B, K).

        With the offsets, q is the probability of being right for the class frequencies that these
        stand for, so that rare classes are not abstained from merely because they are rare.
        """
        q = self._scores(probability).softmax(1)
        return q.gather(1, self(probability)[:, None]).squeeze(1)

    def confident(self, probability: Tensor) -> Tensor:
        """Whether the confidence reaches the threshold (B,); the decision abstains elsewhere."""
        confidence = self.confidence(probability)
        return confidence >= (-1.0 if self.threshold is None else self.threshold)

    def _scores(self, probability: Tensor) -> Tensor:
        scores = log(probability) / self.temperature
        return scores + scores.new_tensor(self.offsets) if self.offsets else scores

    def save(self, folder: Path) -> None:
        write_json(folder / DECISION_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path, classes: Sequence[str] | None = None) -> Decision | None:
        """Load the decision of a run, or None if none was chosen.

        Args:
            folder: Run folder.
            classes: Names of the classes that it must be for; None accepts any.

        Raises:
            RunError: The file holds no decision or one for other classes, or a number that is not
                finite.
        """
        decision = cls._read(folder / DECISION_FILE)
        if decision and classes is not None and list(decision.classes) != list(classes):
            raise RunError(
                f"{folder / DECISION_FILE} is for other classes: choose it again with "
                "`make decide`."
            )
        return decision

    @classmethod
    def _read(cls, file: Path) -> Decision | None:
        if not file.exists():
            return None
        try:
            record = json.loads(file.read_text("utf-8"))
            costs = record["costs"] and tuple(tuple(row) for row in record["costs"])
            threshold = record.get("threshold")  # added after 0.1.0
            numbers = [
                record["temperature"],
                0.0 if threshold is None else threshold,
                *record["offsets"],
                *(x for row in costs or () for x in row),
            ]
            if not all(map(math.isfinite, numbers)):
                raise ValueError("not all of its numbers are finite")
            return cls(
                tuple(record["classes"]),
                record["temperature"],
                tuple(record["offsets"]),
                costs,
                threshold,
            )
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{file} holds no decision ({reason(error)}): choose it again with `make decide`."
            ) from None


def outcome(decided: Tensor, label: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Accuracy, balanced accuracy, and recall and precision of each class.

    For melanoma against nevus, the recall of mel is the sensitivity and that of nv the specificity;
    the precision of mel is the positive and that of nv the negative predictive value.
    """
    hits = decided == label
    values = {"accuracy": hits.double().mean().item()}  # NaN without images, as below
    for c, name in enumerate(classes):
        values[f"recall_{name}"] = hits[label == c].double().mean().item()
        # As with scikit-learn's zero_division=0, a class that is never decided has precision 0.
        values[f"precision_{name}"] = hits[decided == c].double().mean().nan_to_num().item()
    recalls = [r for k, r in values.items() if k.startswith("recall") and not math.isnan(r)]
    balanced = sum(recalls) / len(recalls) if recalls else math.nan
    return values | {"balanced_accuracy": balanced}


def log(probability: Tensor) -> Tensor:
    """Logarithm of probabilities, finite at 0, in float64."""
    return probability.double().clamp(min=MIN_PROBABILITY).log()


def fit_temperature(
    probability: Tensor, label: Tensor, class_counts: Sequence[int] | None = None
) -> float:
    """Temperature scaling (https://arxiv.org/abs/1706.04599): the T of least cross-entropy.

    The cross-entropy is convex in 1 / T, so that T is found by bisection, within [0.05, 20].

    Args:
        probability: Probabilities of the network (N, K).
        label: True classes (N,).
        class_counts: Number of training images per class. If given, the images are reweighted to
            the training class frequencies, so that a class-balanced validation split does not make
            the network look overconfident. Classes without training images are ignored; if there
            are no others, T is 1.
    """
    scores, low, high = log(probability), 0.05, 20.0
    target = scores.gather(1, label[:, None]).squeeze(1)
    weight = torch.ones_like(target)
    if class_counts is not None:
        images = torch.bincount(label, minlength=len(class_counts)).clamp(min=1)
        weight = (torch.tensor(class_counts) / images).to(weight)[label]
    if not weight.any():
        return 1.0
    for _ in range(60):
        inverse = (low * high) ** 0.5
        expected = ((scores * inverse).softmax(1) * scores).sum(1)
        low, high = (low, inverse) if weight @ (expected - target) > 0 else (inverse, high)
    return 1 / inverse


class Validation(NamedTuple):
    """The validation images that a rule chooses from.

    Args:
        probability: Calibrated probabilities (N, K).
        label: True classes (N,).
        classes: Names of the K classes.
        class_counts: Number of training images per class.
    """

    probability: Tensor
    label: Tensor
    classes: Sequence[str]
    class_counts: Sequence[int]


class Rule(ABC):
    """Base of rules that choose a decision from the validation images alone."""

    @abstractmethod
    def choose(self, validation: Validation) -> dict[str, Any]:
        """The offsets or costs of the chosen :class:`Decision`."""


class ArgMax(Rule):
    """The most likely class; only the temperature is fitted."""

    def choose(self, validation: Validation) -> dict[str, Any]:
        return {}


class LogitAdjustment(Rule):
    """Post-hoc logit adjustment (https://arxiv.org/abs/2007.07314, eq. 9): b_c = -tau log pi_c.

    A class without training images has no prior: its offset is 0, the smallest of all.

    Args:
        tau: Strength of the adjustment, at least 0. 1 is best for balanced accuracy if the network
            is calibrated; 0 is the arg-max.
    """

    def __init__(self, tau: float = 1.0) -> None:
        self.tau = tau

    def choose(self, validation: Validation) -> dict[str, Any]:
        prior = torch.tensor(validation.class_counts, dtype=torch.float64)
        prior = prior / prior.sum()
        trained_prior = prior.where(prior > 0, 1.0)
        return {"offsets": tuple((-self.tau * trained_prior.log()).tolist())}


class Sensitivity(Rule):
    """The smallest logit offset of a class that reaches the required sensitivity.

    Args:
        positive: Name of the class that must not be missed.
        at_least: Required sensitivity: share of the validation images of the class that are
            recognized, in (0, 1].
    """

    def __init__(self, positive: str = "mel", at_least: float = 0.9) -> None:
        self.positive, self.at_least = positive, at_least

    def choose(self, validation: Validation) -> dict[str, Any]:
        if self.positive not in validation.classes:
            raise RunError(
                f"There is no class {self.positive!r}: set --trainer.callbacks.rule.positive to "
                f"one of {', '.join(validation.classes)}."
            )
        c = list(validation.classes).index(self.positive)
        if not (validation.label == c).any():
            raise RunError(
                f"The validation split has no image of {self.positive} to measure its sensitivity "
                "on: choose another class or rule, or use a split that has some."
            )
        scores = log(validation.probability[validation.label == c])
        others = scores.clone()
        others[:, c] = -torch.inf
        # An image is decided for c once the offset exceeds its deficit to the best other class.
        deficits = (others.amax(1) - scores[:, c]).sort().values
        required = max(1, math.ceil(len(deficits) * self.at_least - 1e-9))
        deficit = deficits[required - 1].item()
        offsets = [0.0] * len(validation.classes)
        offsets[c] = deficit + 1e-6 * max(1.0, abs(deficit))
        return {"offsets": tuple(offsets)}


class MinimumCost(Rule):
    """The class of the smallest expected cost.

    Args:
        costs: Costs (K, K) of deciding class k (column) where class j (row) is true, in the order
            of the classes. For two classes with costs FP and FN, the decision is a threshold at
            FP / (FP + FN).
    """

    def __init__(self, costs: list[list[float]]) -> None:
        self.costs = costs

    def choose(self, validation: Validation) -> dict[str, Any]:
        k = len(validation.classes)
        if [len(row) for row in self.costs] != [k] * k:
            raise RunError(f"The costs are {self.costs}: give {k} rows of {k} numbers.")
        if not all(math.isfinite(cost) for row in self.costs for cost in row):
            raise RunError(f"The costs are {self.costs}: give finite numbers only.")
        return {"costs": tuple(tuple(row) for row in self.costs)}
