"""Hierarchical classifiers: a decision at every level of the taxonomy, judged at every level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.metrics import scores


class HierarchicalClassifier(Classifier):
    """Trains one criterion per level: the sum of w_l L_l over the levels l.

    The last level is the classes, so that everything reported of a flat classifier is reported of
    it. Accuracy and balanced accuracy are logged of every level as well, ``val/level1_accuracy``
    being the coarsest; they judge the level's own decision, which need not be the one above the
    diagnosis.

    Args:
        network: Its ``taxonomy`` is a :class:`Taxonomy`; its ``levels`` maps images to logits
            (B, C) over the C nodes of each level, coarse to fine.
        criterion: Of the classes.
        inner_criteria: Of the levels above, coarse to fine; cross-entropy by default.
        level_weights: The w_l, coarse to fine; by default the mean over the levels is taken.
        **kwargs: As for :class:`Classifier`.
    """

    network: Any

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        inner_criteria: list[nn.Module] | None = None,
        level_weights: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, criterion, **kwargs)
        levels: list[list[str]] = self.network.taxonomy.levels
        inner = inner_criteria or [nn.CrossEntropyLoss() for _ in levels[:-1]]
        self.inner_criteria = nn.ModuleList(inner)
        self.level_weights = level_weights or [1 / len(levels)] * len(levels)
        if len(inner) + 1 != len(levels) or len(self.level_weights) != len(levels):
            raise ModelError(f"The taxonomy has {len(levels)} levels: a criterion and weight each.")
        self.confusion: Any = nn.ModuleDict(
            {
                split: nn.ModuleList(
                    MulticlassConfusionMatrix(len(names), validate_args=False) for names in levels
                )
                for split in self.metrics
            }
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        loss = self.level_loss(self.network.levels(batch["image"]), batch["label"])
        self.log("train/loss", loss)
        return loss

    def level_loss(self, logits: Sequence[Tensor], label: Tensor) -> Tensor:
        """Logits (B, C) of each level and labels (B,), or soft labels (B, K), to a scalar."""
        at_level, criteria = self.network.taxonomy.at_level, [*self.inner_criteria, self.criterion]
        losses = [
            weight * criterion(logits[level], at_level(label, level))
            for level, (weight, criterion) in enumerate(
                zip(self.level_weights, criteria, strict=True)
            )
        ]
        return torch.stack(losses).sum()

    def evaluate(self, batch: dict[str, Tensor], split: str) -> None:
        logits, label = self.network.levels(batch["image"]), batch["label"]
        self.metrics[split].update(logits[-1], label, batch["index"])
        self.losses[split].update(F.cross_entropy(logits[-1], label, reduction="none"))
        for level, confusion in enumerate(self.confusion[split]):
            confusion.update(logits[level], self.network.taxonomy.at_level(label, level))

    def report(self, split: str) -> None:
        super().report(split)
        for level, confusion in enumerate(self.confusion[split]):
            computed = scores(confusion.compute(), self.network.taxonomy.levels[level])
            for name in ("accuracy", "balanced_accuracy"):
                self.log(f"{split}/level{level + 1}_{name}", computed[name])
            confusion.reset()


class PathClassifier(HierarchicalClassifier):
    """Trains a decoder of paths with teacher forcing, as Barata et al. do.

    The loss is the mean of the criterion over the steps, on nodes of the shared vocabulary, plus
    the path loss (https://doi.org/10.1016/j.patcog.2020.107413).

    Args:
        network: As for :class:`HierarchicalClassifier`, and its ``decode`` maps ``features`` of
            images and paths (B, T) to logits (B, T, N), as :class:`AttentionDecoder` does.
        criterion: Of the nodes: logits (B T, N) and their indices (B T,) to a scalar.
        path_weight: Factor of the path loss; 1 in the paper.
        **kwargs: As for :class:`Classifier`.
    """

    def __init__(
        self, network: nn.Module, criterion: nn.Module, path_weight: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(network, criterion, **kwargs)
        self.path_weight = path_weight

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        targets = self.network.taxonomy.targets(batch["label"])
        # Where labels are mixed the path leads to the larger share.
        hard = batch["label"] if batch["label"].ndim == 1 else batch["label"].argmax(1)
        path = self.network.taxonomy.paths[hard]
        logits = self.network.decode(self.network.features(batch["image"]), path)
        along = path_loss(logits, targets)
        loss = self.criterion(logits.flatten(0, 1), targets.flatten(0, 1))
        loss = loss + self.path_weight * along
        self.log_dict({"train/loss": loss, "train/path_loss": along})
        return loss


def path_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - cos(sum_t onehot_t, sum_t softmax_t), the mean over the batch.

    Wherever on its path a node appears, it counts: the order of the steps is the criterion's.

    Shape:
        logits (B, T, N); target (B, T), or shares (B, T, N).
    """
    probability = logits.float().softmax(-1)
    if target.ndim == 2:
        target = F.one_hot(target, logits.shape[-1])
    true = target.to(probability.dtype).sum(1)
    return 1 - F.cosine_similarity(true, probability.sum(1), dim=1).mean()
