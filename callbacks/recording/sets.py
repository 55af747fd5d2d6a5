"""Conformal prediction sets, with thresholds that are chosen on the validation split."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from callbacks.atomic_files import write_json
from callbacks.errors import RunError, reason
from callbacks.recording.lesions import Array, share
from callbacks.run_folder import SETS as SETS_FILE

AGAIN = "choose them again with `make decide SETS=...`"
EXCHANGEABLE = (
    "new lesions are like those of the validation split (exchangeable). Approximate where this "
    "split also chose the epoch."
)


@dataclass(frozen=True)
class PredictionSets:
    """Prediction sets {k: p_k >= t_k}; a set is empty if no class is likely enough.

    Split conformal prediction (https://arxiv.org/abs/2107.07511) compares a score s_k with a
    quantile. All methods here have scores that fall with the probability p_k, so that the
    comparison is a threshold on p_k for each class. Adding the most likely class to empty sets
    would keep the guarantee as well, but hide that nothing is likely enough.

    Args:
        classes: Names of the K classes.
        kind: Name of the method that chose the thresholds.
        coverage: Target coverage, in (0, 1).
        minimum: Thresholds t (K,), at least 0, on the probabilities of the network before any
            temperature. 0 puts a class into every set.
        step: Optimizer steps of the checkpoint that they were chosen for; None if unknown.

    Examples:
        >>> sets = PredictionSets(("mel", "nv"), "ClassConditional", 0.9, (0.1, 0.5))
        >>> sets.names(torch.tensor([[0.2, 0.8], [0.05, 0.95], [0.6, 0.4], [0.09, 0.49]]))
        ['mel nv', 'nv', 'mel', '']
    """

    classes: tuple[str, ...]
    kind: str
    coverage: float
    minimum: tuple[float, ...]
    step: int | None = None

    def __call__(self, probability: Tensor) -> Tensor:
        """Whether each class is in the set (B, K), from the network's probabilities (B, K)."""
        values = probability.double()
        return values >= values.new_tensor(self.minimum)

    def names(self, probability: Tensor) -> list[str]:
        """Each image's set as class names separated by spaces, from probabilities (B, K)."""
        return [
            " ".join(name for name, member in zip(self.classes, row, strict=True) if member)
            for row in self(probability).tolist()
        ]

    def save(self, folder: Path) -> None:
        write_json(
            folder / SETS_FILE,
            {
                "kind": self.kind,
                "coverage": self.coverage,
                "minimum": dict(zip(self.classes, self.minimum, strict=True)),
                "step": self.step,
            },
        )

    @classmethod
    def load(cls, folder: Path, classes: Sequence[str], step: int | None) -> PredictionSets | None:
        """Load the prediction sets of a run, or None if none were chosen.

        Args:
            folder: Run folder.
            classes: Names of the classes of the run.
            step: Optimizer steps of the checkpoint that the sets are used with; None if unknown.

        Raises:
            RunError: The file holds no thresholds, or those of other classes or of another
                checkpoint.
        """
        file = folder / SETS_FILE
        if not file.exists():
            return None
        try:
            record = json.loads(file.read_text("utf-8"))
            minimum = tuple(map(float, record["minimum"].values()))
            if not all(math.isfinite(t) and t >= 0 for t in minimum):
                raise ValueError("not all of its thresholds are numbers from 0")
            sets = cls(
                tuple(record["minimum"]),
                str(record["kind"]),
                float(record["coverage"]),
                minimum,
                record["step"],
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{file} holds no sets ({reason(error)}): {AGAIN}.") from None
        if list(sets.classes) != list(classes):
            raise RunError(f"{file} is for other classes: {AGAIN}.")
        if None not in (step, sets.step) and step != sets.step:
            raise RunError(
                f"{file} was chosen for the checkpoint of step {sets.step}, not {step}: {AGAIN}."
            )
        return sets

    def measure(self, probability: Tensor, label: Tensor, lesion: Array) -> dict[str, Any]:
        """Coverage and size of the sets; every lesion counts once.

        Args:
            probability: Probabilities of the network (N, K).
            label: True classes (N,).
            lesion: Number of each image's lesion, from 0 (N,).

        Returns:
            ``kind``, ``target``, ``coverage`` with its 95 % ``interval``, ``macro_coverage``, the
            mean ``size``, the shares of ``singletons`` and ``empty`` sets, and ``per_class`` the
            coverage, interval and size. NaN without lesions.
        """
        members = self(probability)
        size = members.sum(1).numpy()
        covered = members.gather(1, label[:, None]).squeeze(1).numpy()
        everything = self._coverage(covered, size, lesion, (label >= 0).numpy())
        per_class = {
            name: self._coverage(covered, size, lesion, (label == c).numpy())
            for c, name in enumerate(self.classes)
        }
        occurring = [c["coverage"] for c in per_class.values() if not math.isnan(c["coverage"])]
        return {
            "kind": self.kind,
            "target": self.coverage,
            **everything,
            "macro_coverage": sum(occurring) / len(occurring) if occurring else math.nan,
            "singletons": share(size == 1, lesion).value,
            "empty": share(size == 0, lesion).value,
            "per_class": per_class,
        }

    def _coverage(self, covered: Array, size: Array, lesion: Array, among: Array) -> dict[str, Any]:
        coverage, *interval = share(covered, lesion, among)
        # The mean size is a share of all classes.
        mean = share(size / len(self.classes), lesion, among).value * len(self.classes)
        return {"coverage": coverage, "interval": interval, "size": mean}


def quantile(score: Tensor, lesion: Tensor, coverage: float) -> float:
    """Conformal quantile of scores, in which every lesion counts once.

    Hierarchical conformal prediction (https://arxiv.org/abs/2306.06342): the ``coverage`` quantile
    of the distribution with mass 1 / ((L + 1) n_l) at the score of each of the n_l images of each
    of L lesions, and mass 1 / (L + 1) at infinity. A random image of a new lesion, exchangeable
    with these lesions, has a score up to it with probability of at least ``coverage``. With one
    image per lesion it is the ceil((L + 1) coverage)-th smallest score of split conformal
    prediction.

    Args:
        score: Scores of the true classes (N,).
        lesion: Number of each image's lesion, from 0 (N,).
        coverage: Target coverage, in (0, 1).

    Returns:
        The quantile; infinite with fewer than coverage / (1 - coverage) lesions.

    Examples:
        >>> quantile(torch.arange(9.0), torch.arange(9), coverage=0.9)
        8.0
        >>> quantile(torch.arange(8.0), torch.arange(8), coverage=0.9)
        inf
    """
    images = torch.bincount(lesion)
    ordered, order = score.double().sort()
    mass = (1 / images.double())[lesion[order]].cumsum(0)
    lesions = int((images > 0).sum())
    reached = mass >= coverage * (lesions + 1) - 1e-9  # thirds do not add up exactly
    return ordered[reached][0].item() if reached.any() else math.inf


class Conformal(ABC):
    """Base of the methods that choose the thresholds of prediction sets on the validation split.

    Args:
        coverage: Target coverage, in (0, 1): probability that the set of a new lesion's image
            holds the true class.

    Attributes:
        guarantee: Sentence on what the sets promise, and under which assumptions.
    """

    guarantee: ClassVar[str]

    def __init__(self, coverage: float = 0.9) -> None:
        if not 0 < coverage < 1:
            raise RunError(
                f"A coverage of {coverage} cannot be a target: set COVERAGE= (--coverage) above 0 "
                "and below 1."
            )
        self.coverage = coverage

    @abstractmethod
    def minimum(
        self, probability: Tensor, label: Tensor, lesion: Tensor, class_counts: Sequence[int]
    ) -> Tensor:
        """Thresholds (K,) on the probabilities.

        Args:
            probability: Probabilities of the network (N, K).
            label: True classes (N,).
            lesion: Number of each image's lesion, from 0 (N,).
            class_counts: Number of training images per class.
        """


class Marginal(Conformal):
    """One threshold for all classes: score 1 - p, "LAC" (https://arxiv.org/abs/1609.00451).

    The coverage is that of lesions with the class frequencies of the validation split. Rare
    classes can have much less.
    """

    guarantee = (
        "The set of a new lesion holds its true class with a probability of at least {coverage}, "
        f"if lesions have the class frequencies of the validation split and {EXCHANGEABLE}"
    )

    def minimum(
        self, probability: Tensor, label: Tensor, lesion: Tensor, class_counts: Sequence[int]
    ) -> Tensor:
        p = probability.gather(1, label[:, None]).squeeze(1)
        threshold = -quantile(-p, lesion, self.coverage)  # 1 - p orders images as -p does
        return torch.full((len(class_counts),), max(threshold, 0.0), dtype=torch.float64)


class ClassConditional(Conformal):
    """A threshold for each class: label-conditional (Mondrian) https://arxiv.org/abs/1209.2673.

    The score is 1 - p, and each class is calibrated by its own lesions, so that each has the target
    coverage. It therefore holds for any class frequencies. A class with too few validation lesions
    is in every set: fewer than 9 for a coverage of 0.9, fewer than 19 for 0.95.
    """

    guarantee = (
        "For each class, the set of a new lesion of the class holds it with a probability of at "
        f"least {{coverage}}, whatever the class frequencies, if {EXCHANGEABLE}"
    )

    def minimum(
        self, probability: Tensor, label: Tensor, lesion: Tensor, class_counts: Sequence[int]
    ) -> Tensor:
        chosen = []
        for c in range(len(class_counts)):
            of_class = label == c
            q = quantile(-probability[of_class, c], lesion[of_class], self.coverage)
            chosen.append(max(-q, 0.0))
        return torch.tensor(chosen, dtype=torch.float64)


class PrevalenceAdjusted(Conformal):
    """Prevalence-adjusted softmax: score -p / pi (https://arxiv.org/abs/2507.06867).

    The probabilities are divided by the class frequencies pi of training, and not normalized. The
    guarantee is that of :class:`Marginal`; the sets aim at a high mean of the coverages of the
    classes. For networks trained to the natural frequencies: others, such as those of logit
    adjustment or class-balanced sampling, would be adjusted twice. A class without training images
    is in every set.
    """

    guarantee = Marginal.guarantee

    def minimum(
        self, probability: Tensor, label: Tensor, lesion: Tensor, class_counts: Sequence[int]
    ) -> Tensor:
        prior = torch.tensor(class_counts, dtype=torch.float64)
        prior = prior / prior.sum()
        p = probability.double().gather(1, label[:, None]).squeeze(1)
        adjusted = torch.where(prior[label] > 0, p / prior[label], torch.inf)
        threshold = max(-quantile(-adjusted, lesion, self.coverage), 0.0)
        if math.isinf(threshold):  # only classes without training images have to be covered
            threshold = 0.0
        # Rounded down, so that the image at the threshold is in its own set.
        return threshold * prior * (1 - 1e-12)
