"""BCL: balanced contrastive learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.classifier import Classifier
from lightning_modules.contrastive import views
from lightning_modules.losses.contrast import Contrast
from lightning_modules.networks.contrastive import BCLNetwork


class BCL(Classifier):
    """Balanced contrastive learning (https://arxiv.org/abs/2207.09052, eq. 8).

    Needs batches of three :class:`datamodules.views.Views`. The first is classified, with logit
    compensation; the other two are compared with each other and with the class prototypes.

    Args:
        network: Encoder, cosine classifier, and the projectors of images and of classes.
        contrastive: As :class:`~lightning_modules.losses.BalancedContrastiveLoss`.
        weight: Weight of ``contrastive``, beside 1 of ``criterion``.
        **kwargs: As for :class:`~lightning_modules.Classifier`; ``criterion`` as
            :class:`~lightning_modules.losses.LogitAdjustedLoss`.
    """

    mixes = False

    def __init__(
        self, network: BCLNetwork, contrastive: nn.Module, weight: float = 0.35, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        self.contrastive, self.weight = contrastive, weight

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        size = len(views(batch, 3, check=batch_idx == 0)[0]["label"])
        network: Any = self.network
        features = network.encode(batch["image"])  # of all views at once, (3B, C)
        logits, label = network.classify(features), batch["label"]
        contrast = Contrast.of_all(network.project(features[size:]), label[size:], logits[size:])
        prototypes = network.prototypes()
        classes = torch.arange(len(prototypes), device=label.device)
        loss = self.criterion(logits[:size], label[:size])
        loss = loss + self.weight * self.contrastive(contrast.beside(prototypes, classes))
        self.log("train/loss", loss)
        return loss
