"""BCL: balanced contrastive learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.batches import Batch, views
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.losses.contrastive import ContrastiveBatch
from lightning_modules.losses.criterion import ContrastiveLoss, Criterion
from lightning_modules.networks.contrastive import BCLNetwork


class BCL(DiagnosticLearner):
    """Balanced contrastive learning (https://arxiv.org/abs/2207.09052, eq. 8).

    Needs batches of three :class:`datamodules.views.Views`. The first view is classified, with
    logit compensation; the other two are compared with each other and with the class prototypes.

    Args:
        network: Encoder, cosine classifier, and the projectors of images and of classes.
        criterion: Loss of logits (B, K) for labels (B,); in the paper
            :class:`~lightning_modules.losses.LogitAdjustedLoss`.
        contrastive: Contrastive loss; in the paper
            :class:`~lightning_modules.losses.BalancedContrastiveLoss`.
        weight: Weight of the contrastive loss, at least 0; that of the criterion is 1.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.
    """

    network: BCLNetwork

    def __init__(
        self,
        network: BCLNetwork,
        criterion: Criterion | nn.CrossEntropyLoss,
        contrastive: ContrastiveLoss,
        weight: float = 0.35,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion = criterion
        self.contrastive = contrastive
        self.weight = weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        size = len(views(batch, 3, check=batch_idx == 0)[0]["label"])
        network = self.network
        features = network.encode(batch["image"])  # all views at once, (3B, C)
        logits, label = network.classify(features), batch["label"]
        embedding = network.project(features[size:])
        compared = ContrastiveBatch.of_all(embedding, label[size:], logits[size:])
        prototypes = network.prototypes()
        classes = torch.arange(len(prototypes), device=label.device)
        loss = self.criterion(logits[:size], label[:size])
        loss = loss + self.weight * self.contrastive(compared.beside(prototypes, classes))
        self.log("train/loss", loss)
        return loss
