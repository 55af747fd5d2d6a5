"""From probabilities to decisions, by a rule that is chosen on validation and kept with the run."""

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

from callbacks.errors import RunError, reason
from callbacks.files import write_json

FILE = "decision.json"


@dataclass(frozen=True)
class Decision:
    """Decides argmin_k sum_j q_j C_jk, with q = softmax(log p / T + b).

    Args:
        classes: Names of the K classes.
        temperature: T; above 1 it makes the network less sure.
        offsets: b (K,); logit adjustment and thresholds are offsets.
        costs: C (K, K), of deciding class k (column) where j (row) is true; None is 0/1 costs, of
            which the decision is the arg-max.
    """

    classes: tuple[str, ...]
    temperature: float = 1.0
    offsets: tuple[float, ...] = ()
    costs: tuple[tuple[float, ...], ...] | None = None

    def calibrated(self, probability: Tensor) -> Tensor:
        """softmax(log p / T): probabilities (B, K) to probabilities."""
        return (log(probability) / self.temperature).softmax(1)

    def __call__(self, probability: Tensor) -> Tensor:
        """Probabilities (B, K) of the network to the decided classes (B,)."""
        if self.costs is None:
            return self._scores(probability).argmax(1)
        return self.expected_cost(probability).argmin(1)

    def expected_cost(self, probability: Tensor) -> Tensor:
        """Probabilities (B, K) of the network to the expected cost of deciding each class."""
        q = self._scores(probability).softmax(1)
        return 1 - q if self.costs is None else q @ q.new_tensor(self.costs)

    def _scores(self, probability: Tensor) -> Tensor:
        scores = log(probability) / self.temperature
        return scores + scores.new_tensor(self.offsets) if self.offsets else scores

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Decision | None:
        """The decision of a run, or None where none was chosen.

        Raises:
            RunError: The file does not hold a decision, or not all of its numbers are finite.
        """
        if not (folder / FILE).exists():
            return None
        try:
            kept = json.loads((folder / FILE).read_text("utf-8"))
            costs = kept["costs"] and tuple(tuple(row) for row in kept["costs"])
            numbers = [
                kept["temperature"],
                *kept["offsets"],
                *(x for row in costs or () for x in row),
            ]
            if not all(map(math.isfinite, numbers)):
                raise ValueError("not all of its numbers are finite")
            return cls(tuple(kept["classes"]), kept["temperature"], tuple(kept["offsets"]), costs)
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{folder / FILE} holds no decision ({reason(error)}): choose it again with "
                "`make decide`."
            ) from None


def outcome(decided: Tensor, label: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Recall and precision of each class; of two classes they are all that there is to know.

    With melanoma against nevus, recall of mel is the sensitivity and of nv the specificity;
    precision of mel is the positive and of nv the negative predictive value.
    """
    hits = decided == label
    values = {"accuracy": hits.double().mean().item()}  # NaN without an image, as below
    for c, name in enumerate(classes):
        values[f"recall_{name}"] = hits[label == c].double().mean().item()
        # As scikit-learn's zero_division=0: a class that is never decided has precision 0.
        values[f"precision_{name}"] = hits[decided == c].double().mean().nan_to_num().item()
    recalls = [r for k, r in values.items() if k.startswith("recall") and not math.isnan(r)]
    balanced = sum(recalls) / len(recalls) if recalls else math.nan
    return values | {"balanced_accuracy": balanced}


def log(probability: Tensor) -> Tensor:
    return probability.double().clamp(min=1e-30).log()


def fit_temperature(
    probability: Tensor, label: Tensor, class_counts: Sequence[int] | None = None
) -> float:
    """Temperature scaling (https://arxiv.org/abs/1706.04599): T of the least cross-entropy.

    Convex in 1 / T, so bisection on the sign of its derivative finds it, within [0.05, 20].

    Args:
        probability: Of the network, (N, K).
        label: Classes (N,).
        class_counts: Training images per class. The images then weigh what gives the classes the
            frequencies of training: a network that knows these is not overconfident where a
            balanced part has others. Images of a class that was never trained on do not count;
            without any other, T is 1.
    """
    scores, low, high = log(probability), 0.05, 20.0
    target = scores.gather(1, label[:, None]).squeeze(1)
    weight = torch.ones_like(target)
    if class_counts is not None:
        there = torch.bincount(label, minlength=len(class_counts)).clamp(min=1)
        weight = (torch.tensor(class_counts) / there).to(weight)[label]
    if not weight.any():
        return 1.0
    for _ in range(60):
        inverse = (low * high) ** 0.5
        expected = ((scores * inverse).softmax(1) * scores).sum(1)
        low, high = (low, inverse) if weight @ (expected - target) > 0 else (inverse, high)
    return 1 / inverse


class Validation(NamedTuple):
    """What a rule may look at.

    Args:
        probability: Calibrated probabilities (N, K) of the validation images.
        label: Their classes (N,).
        classes: Names of the K classes.
        class_counts: Training images per class.
    """

    probability: Tensor
    label: Tensor
    classes: Sequence[str]
    class_counts: Sequence[int]


class Rule(ABC):
    """How a decision is chosen, from the validation images alone."""

    @abstractmethod
    def choose(self, seen: Validation) -> dict[str, Any]:
        """What :class:`Decision` takes beside classes and temperature."""


class ArgMax(Rule):
    """The likeliest class; the temperature alone is fitted."""

    def choose(self, seen: Validation) -> dict[str, Any]:
        return {}


class LogitAdjustment(Rule):
    """Post-hoc logit adjustment (https://arxiv.org/abs/2007.07314, eq. 9): b_c = -tau log pi_c.

    A class without training images has no prior: its offset is 0, the least of all.

    Args:
        tau: 1 is best for balanced accuracy where the network is calibrated; 0 is the arg-max.
    """

    def __init__(self, tau: float = 1.0) -> None:
        self.tau = tau

    def choose(self, seen: Validation) -> dict[str, Any]:
        prior = torch.tensor(seen.class_counts, dtype=torch.float64)
        prior = prior / prior.sum()
        seen_in_training = prior.where(prior > 0, 1.0)
        return {"offsets": tuple((-self.tau * seen_in_training.log()).tolist())}


class Sensitivity(Rule):
    """The smallest offset of one class with which enough of its images are found.

    Args:
        positive: The class that must not be missed.
        at_least: Share of its validation images that are decided for it, in (0, 1].
    """

    def __init__(self, positive: str = "mel", at_least: float = 0.9) -> None:
        self.positive, self.at_least = positive, at_least

    def choose(self, seen: Validation) -> dict[str, Any]:
        if self.positive not in seen.classes:
            raise RunError(
                f"There is no class {self.positive!r}: choose of {', '.join(seen.classes)}."
            )
        c = list(seen.classes).index(self.positive)
        if not (seen.label == c).any():
            raise RunError(
                f"The validation part has no image of {self.positive}, from which its sensitivity "
                "could be known: choose another class or rule, or a split that has some."
            )
        scores = log(seen.probability[seen.label == c])
        others = scores.clone()
        others[:, c] = -torch.inf
        # An image is decided for c once the offset exceeds what c lacks to the best of the others.
        lacking = (others.amax(1) - scores[:, c]).sort().values
        found = math.ceil(len(lacking) * self.at_least - 1e-9)
        wanted = lacking[max(1, found) - 1].item()
        offsets = [0.0] * len(seen.classes)
        offsets[c] = wanted + 1e-6 * max(1.0, abs(wanted))
        return {"offsets": tuple(offsets)}


class MinimumCost(Rule):
    """The class of the least expected cost.

    Args:
        costs: C (K, K) of deciding class k (column) where j (row) is true, in the order of the
            classes. With two classes and costs FP and FN it is a threshold at FP / (FP + FN).
    """

    def __init__(self, costs: list[list[float]]) -> None:
        self.costs = costs

    def choose(self, seen: Validation) -> dict[str, Any]:
        k = len(seen.classes)
        if [len(row) for row in self.costs] != [k] * k:
            raise RunError(f"Costs must be {k} rows of {k}: {self.costs}.")
        if not all(math.isfinite(cost) for row in self.costs for cost in row):
            raise RunError(f"Costs must be finite: {self.costs}.")
        return {"costs": tuple(tuple(row) for row in self.costs)}
