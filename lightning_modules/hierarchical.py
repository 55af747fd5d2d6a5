"""Hierarchical classifiers: trained and evaluated at every level of the taxonomy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_modules.batches import Batch
from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.learner import SPLITS
from lightning_modules.losses.criterion import Criterion
from lightning_modules.metrics import scores
from lightning_modules.networks.attention_decoder import AttentionDecoder
from lightning_modules.networks.network import HierarchicalNetwork


class HierarchicalClassifier(Classifier):
    """Train one criterion per level: the sum of w_l L_l over the levels l.

    The last level are the classes, which are evaluated as those of a flat classifier. Accuracy and
    balanced accuracy are also logged for every level, ``val/level1_accuracy`` being the coarsest.
    They evaluate the decision of the level itself, which may differ from the parent of the
    predicted class.

    Args:
        network: Network with logits for every level of a taxonomy.
        criterion: Loss of the logits of the classes.
        inner_criteria: Losses of the other levels, coarse to fine; cross-entropy by default.
        level_weights: Weights w_l of the levels, coarse to fine; by default 1 over their number.
        **kwargs: As for :class:`~lightning_modules.Classifier`.
    """

    network: HierarchicalNetwork

    def __init__(
        self,
        network: HierarchicalNetwork,
        criterion: Criterion | nn.CrossEntropyLoss,
        inner_criteria: list[Criterion | nn.CrossEntropyLoss] | None = None,
        level_weights: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, criterion, **kwargs)
        levels = network.taxonomy.levels
        inner = inner_criteria or [nn.CrossEntropyLoss() for _ in levels[:-1]]
        self.inner_criteria = nn.ModuleList(inner)
        self.level_weights = level_weights or [1 / len(levels)] * len(levels)
        if len(inner) + 1 != len(levels) or len(self.level_weights) != len(levels):
            raise ModelError(
                f"The taxonomy has {len(levels)} levels: set {len(levels) - 1} "
                f"model.inner_criteria and {len(levels)} model.level_weights."
            )
        self.confusion = nn.ModuleDict(
            {
                split: nn.ModuleList(
                    MulticlassConfusionMatrix(len(names), validate_args=False) for names in levels
                )
                for split in SPLITS
            }
        )

    def confusions(self, split: str) -> list[MulticlassConfusionMatrix]:
        """The confusion matrices of the levels, coarse to fine."""
        return [
            m for m in self.confusion[split].children() if isinstance(m, MulticlassConfusionMatrix)
        ]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        loss = self.level_loss(self.network.levels(batch["image"]), batch["label"])
        self.log("train/loss", loss)
        return loss

    def level_loss(self, logits: Sequence[Tensor], label: Tensor) -> Tensor:
        """Weighted sum of the losses of all levels.

        Args:
            logits: Logits (B, C) of each level, coarse to fine.
            label: Labels (B,), or soft labels (B, K), of the classes.
        """
        at_level, criteria = self.network.taxonomy.at_level, [*self.inner_criteria, self.criterion]
        losses = [
            weight * criterion(logits[level], at_level(label, level))
            for level, (weight, criterion) in enumerate(
                zip(self.level_weights, criteria, strict=True)
            )
        ]
        return torch.stack(losses).sum()

    def evaluate(self, batch: Batch, split: str) -> None:
        logits, label = self.network.levels(batch["image"]), batch["label"]
        self.judge(logits[-1], batch, split)
        for level, confusion in enumerate(self.confusions(split)):
            confusion.update(logits[level], self.network.taxonomy.at_level(label, level))

    def report(self, split: str) -> None:
        super().report(split)
        for level, confusion in enumerate(self.confusions(split)):
            computed = scores(confusion.compute(), self.network.taxonomy.levels[level])
            for name in ("accuracy", "balanced_accuracy"):
                self.log(f"{split}/level{level + 1}_{name}", computed[name])
            confusion.reset()


class PathClassifier(HierarchicalClassifier):
    """Train a decoder of paths with teacher forcing, as Barata et al.

    The loss is the mean of the criterion over the steps, for nodes of the shared vocabulary, plus
    the path loss (https://doi.org/10.1016/j.patcog.2020.107413).

    Args:
        network: Decoder from features of images and paths (B, T) to logits (B, T, N).
        criterion: Loss of the logits (B T, N) of nodes for their indices (B T,).
        path_weight: Weight of the path loss, at least 0; 1 in the paper.
        **kwargs: As for :class:`HierarchicalClassifier`.
    """

    network: AttentionDecoder

    def __init__(
        self,
        network: AttentionDecoder,
        criterion: Criterion | nn.CrossEntropyLoss,
        path_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, criterion, **kwargs)
        self.path_weight = path_weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        targets = self.network.taxonomy.targets(batch["label"])
        # The path of a mixed label is that of its larger share.
        hard = batch["label"] if batch["label"].ndim == 1 else batch["label"].argmax(1)
        path = self.network.taxonomy.paths[hard]
        logits = self.network.decode(self.network.features(batch["image"]), path)
        along = path_loss(logits, targets)
        loss = self.criterion(logits.flatten(0, 1), targets.flatten(0, 1))
        loss = loss + self.path_weight * along
        self.log_dict({"train/loss": loss, "train/path_loss": along})
        return loss


def path_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Path loss 1 - cos(sum_t onehot_t, sum_t softmax_t), the mean over the batch.

    A node counts at any step of the path; only the criterion depends on the order of the steps.

    Shape:
        logits (B, T, N); target (B, T), or shares (B, T, N).
    """
    probability = logits.float().softmax(-1)
    if target.ndim == 2:
        target = F.one_hot(target, logits.shape[-1])
    true = target.to(probability.dtype).sum(1)
    return 1 - F.cosine_similarity(true, probability.sum(1), dim=1).mean()
