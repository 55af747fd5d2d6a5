"""Diagnostic metrics, by which every method is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error
from torchmetrics.utilities.data import dim_zero_cat

from lightning_modules.definitions import CALIBRATION_BINS, MIN_PROBABILITY, Shots


class DiagnosticMetrics(Metric):
    """Diagnostic metrics of a split, from the probabilities and labels of all its images.

    Definitions are scikit-learn's: a class that is never predicted has precision 0; balanced
    accuracy is the mean recall of the classes that occur; macro precision, recall and F1 are means
    over the classes that occur or are predicted. Macro AUROC is the mean one-vs-rest AUROC of the
    classes that occur. ``many_accuracy``, ``medium_accuracy`` and ``few_accuracy`` are the mean
    recalls of frequent, less frequent and rare classes.

    Measures of the probabilities, of which less is better, are means over the images like accuracy,
    so on a split with as many images of each class they are means over the classes, too:

    - ``brier``: Brier score of K classes, the squared distance of the probabilities from 1 for the
      true class and 0 for the others, in [0, 2]. For two classes it is twice the Brier score of the
      positive one.
    - ``nll``: negative log-likelihood of the true class in nats, as the loss of a split, but of the
      probabilities in single precision.
    - ``ece``: expected calibration error of the most likely class, in [0, 1].
    - ``classwise_ece``: the same error of the probability of each class, averaged over all K
      classes (https://arxiv.org/abs/1910.12656, eq. 3), in [0, 1]. Also known as the static
      calibration error (https://arxiv.org/abs/1904.01685).
    - ``aurc``: area under the risk-coverage curve (https://arxiv.org/abs/1805.08206), in [0, 1]:
      share of errors among the images that the network is at least as confident of as of a given
      one, averaged over all images.

    Args:
        class_names: Names of the K classes, in the order of the labels.
        shots: Classes of the groups ``many``, ``medium`` and ``few``; without them, there are no
            metrics of groups.

    Examples:
        >>> metrics = DiagnosticMetrics(["benign", "malignant"])
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> metrics.update(logits, label=torch.tensor([0, 1, 1]), index=torch.arange(3))
        >>> metrics.compute()["balanced_accuracy"]
        tensor(0.7500)
    """

    full_state_update = False
    index: list[Tensor]
    label: list[Tensor]
    probability: list[Tensor]

    def __init__(self, class_names: Sequence[str], shots: Shots | None = None) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.shots = dict(shots or {})
        for state in ("index", "label", "probability"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor, index: Tensor) -> None:
        """Add a batch: logits (B, K), labels (B,) and the indices (B,) of the images."""
        self.index.append(index)
        self.label.append(label)
        self.probability.append(logits.float().softmax(dim=1))

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, ``confusion`` (K, K; true by predicted), and the sorted predictions."""
        order = dim_zero_cat(self.index).argsort()
        label = dim_zero_cat(self.label)[order]
        probability = dim_zero_cat(self.probability)[order]
        confusion = confusion_matrix(label, probability.argmax(dim=1), len(self.class_names))
        return {
            **scores(confusion, self.class_names, self.shots),
            "macro_auroc": _macro_auroc(probability, label),
            **_by_probability(probability, label),
            "confusion": confusion,
            "index": dim_zero_cat(self.index)[order],
            "label": label,
            "probability": probability,
        }


def confusion_matrix(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Numbers of images by true class (row) and predicted class (column)."""
    cells = torch.bincount(label * num_classes + prediction, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def scores(
    confusion: Tensor, class_names: Sequence[str], shots: Shots | None = None
) -> dict[str, Tensor]:
    """Compute the metrics that a confusion matrix (K, K) determines, by name."""
    confusion = confusion.cpu().double()  # some accelerators have no float64
    hits = confusion.diag()
    support, predicted = confusion.sum(1), confusion.sum(0)
    recall, precision = hits / support.clamp(min=1), hits / predicted.clamp(min=1)
    f1 = 2 * hits / (support + predicted).clamp(min=1)
    occurs = support > 0
    occurs_or_predicted = (support + predicted) > 0
    per_class = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    values = {
        "accuracy": hits.sum() / support.sum(),
        "balanced_accuracy": recall[occurs].mean(),
        "macro_precision": precision[occurs_or_predicted].mean(),
        "macro_recall": recall[occurs_or_predicted].mean(),
        "macro_f1": f1[occurs_or_predicted].mean(),
        **_shots(recall, occurs, class_names, shots or {}),
        **{
            f"{metric}_{name}": value
            for metric, column in per_class.items()
            for name, value in zip(class_names, column, strict=True)
        },
    }
    return {name: value.float() for name, value in values.items()}


def _shots(
    recall: Tensor, occurs: Tensor, class_names: Sequence[str], shots: Shots
) -> dict[str, Tensor]:
    members = {
        shot: [i for i, name in enumerate(class_names) if name in names and occurs[i]]
        for shot, names in shots.items()
    }
    return {f"{shot}_accuracy": recall[rows].mean() for shot, rows in members.items() if rows}


def _by_probability(probability: Tensor, label: Tensor) -> dict[str, Tensor]:
    num_classes = probability.shape[1]
    ece = multiclass_calibration_error(probability, label, num_classes, n_bins=CALIBRATION_BINS)
    probability, label = probability.cpu(), label.cpu()
    exact = probability.double()
    gap = F.one_hot(label, num_classes) - exact
    likelihood = exact.gather(1, label[:, None]).clamp(min=MIN_PROBABILITY)
    values = {
        "brier": gap.square().sum(1).mean(),
        "nll": -likelihood.log().mean(),
        "ece": ece,
        "classwise_ece": _classwise_calibration_error(probability, gap),
        "aurc": _area_under_risk_coverage(probability, label),
    }
    return {name: value.float() for name, value in values.items()}


def _classwise_calibration_error(probability: Tensor, gap: Tensor) -> Tensor:
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, dtype=torch.float64).float()
    # Bins as those of the ECE: a probability of exactly 1 has a bin of its own, the last.
    bins = torch.bucketize(probability, edges, right=True) - 1
    per_bin = gap.new_zeros(CALIBRATION_BINS + 1, gap.shape[1]).scatter_add_(0, bins, gap)
    return per_bin.abs().sum() / gap.numel()


def _area_under_risk_coverage(probability: Tensor, label: Tensor) -> Tensor:
    doubt, order = (-probability.amax(1)).sort()
    errors = (probability.argmax(1) != label)[order].double().cumsum(0)
    covered = torch.searchsorted(doubt, doubt, right=True)  # of a tie, all or none
    return (errors[covered - 1] / covered).mean()


def _macro_auroc(probability: Tensor, label: Tensor) -> Tensor:
    present = torch.bincount(label, minlength=probability.shape[1]) > 0
    if present.sum() < 2:  # AUROC ranks one class against others
        return probability.new_tensor(float("nan"))
    one_vs_rest = [
        binary_auroc(probability[:, c], (label == c).long())
        for c in present.nonzero().flatten().tolist()
    ]
    return torch.stack(one_vs_rest).mean()
