"""Classifiers: evaluation of diagnoses, and training with one criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.batches import Batch, require_pairs
from lightning_modules.definitions import Shots
from lightning_modules.learner import SPLITS, Learner
from lightning_modules.losses.criterion import Criterion
from lightning_modules.metrics import DiagnosticMetrics
from lightning_modules.mixes.mix import Mix
from lightning_modules.networks.network import Network


class DiagnosticLearner(Learner):
    """Base of modules that classify images; a subclass defines ``training_step``.

    Logs the metrics of :class:`~lightning_modules.metrics.DiagnosticMetrics`.

    Args:
        network: Network from images (B, 3, H, W) in [0, 1] to logits (B, K).
        *args: As for :class:`~lightning_modules.learner.Learner`.
        class_names: Names of the K classes; the command line takes them from the data.
        shots: Classes of the groups ``many``, ``medium`` and ``few``, whose accuracies are logged;
            the command line takes them from the data.
        **kwargs: As for :class:`~lightning_modules.learner.Learner`.
    """

    diagnoses = True

    def __init__(
        self,
        network: Network,
        *args: Any,
        class_names: Sequence[str] = (),
        shots: Shots | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.network = network
        self.class_names = list(class_names)
        self.shots = shots or {}
        self.metrics = nn.ModuleDict(
            {split: DiagnosticMetrics(class_names, shots) for split in SPLITS}
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities (B, K)."""
        return self(batch["image"]).float().softmax(dim=1)

    def evaluate(self, batch: Batch, split: str) -> None:
        self.judge(self(batch["image"]), batch, split)

    def judge(self, logits: Tensor, batch: Batch, split: str) -> None:
        """Update the metrics and the cross-entropy of a split by logits (B, K)."""
        self.metric(split).update(logits, batch["label"], batch["index"])
        self.loss(split).update(F.cross_entropy(logits, batch["label"], reduction="none"))


class Classifier(DiagnosticLearner):
    """Train a network with one criterion, optionally on mixed images.

    Logs ``train/loss`` of the batches of the first process.

    Args:
        network: Network from images (B, 3, H, W) in [0, 1] to logits (B, K).
        criterion: Loss of logits (B, K) for labels (B,), or soft labels (B, K).
        *args: As for :class:`~lightning_modules.learner.Learner`.
        mix: Mix of the training images and their labels; None trains the images as they are.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.
    """

    def __init__(
        self,
        network: Network,
        criterion: Criterion | nn.CrossEntropyLoss,
        *args: Any,
        mix: Mix | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, *args, **kwargs)
        self.criterion = criterion
        self.mix = mix or nn.Identity()

    @property
    def mixed_rows(self) -> str:
        """Meaning of the even and odd rows of a batch to mix; empty if rows are not pairs."""
        return getattr(self.mix, "rows", "")

    def on_train_start(self) -> None:
        if self.mixed_rows:
            require_pairs(self.mixed_rows, self.sampler)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        loss = self.criterion(self(batch["image"]), batch["label"])
        self.log("train/loss", loss)
        return loss

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of a batch of pairs that is mixed as in training.

        Args:
            batch: Images in even rows, each followed by an image that it may be mixed with.

        Returns:
            Logits (n, K) and labels (n,), or soft labels (n, K), of the mixes of the even rows.
        """
        batch = self.mix(batch)
        step = 1 if self.mixed_rows else 2
        return self(batch["image"])[::step], batch["label"][::step]
