"""SupCon: supervised contrastive learning, jointly with a classifier or before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.losses.criterion import ContrastiveLoss, Criterion
from lightning_modules.networks.contrastive import ContrastiveNetwork


class SupCon(ContrastiveClassifier):
    """Supervised contrastive learning (https://arxiv.org/abs/2004.11362).

    The paper first trains encoder and projector, and then a classifier on the frozen encoder. With
    ``joint`` false this module does the same, except that the classifier is already trained in the
    first stage, without a gradient to the encoder, so that the first stage can be validated.

    The published code (https://github.com/HobbitLong/SupContrast) trains ResNet-50 from random
    weights for 1,000 epochs in batches of 1,024, with SGD at T 0.1, on crops of 20 to 100 % with
    color jitter, including hue, in four of five; the classifier for 100 epochs in batches of 512,
    with SGD at a learning rate that decreases in steps. The recipes here have the network,
    optimizer, batch and epochs of SPMix, T 0.07, which is the code's default, the crops of PaCo,
    and 20 epochs of AdamW for the classifier.

    Args:
        network: Encoder, classifier and projector.
        contrastive: Contrastive loss; in the paper :class:`~lightning_modules.losses.SupConLoss`.
        criterion: Loss of logits (B, K) for labels (B,).
        joint: Whether the encoder is trained by both losses, in one stage.
        **kwargs: As for :class:`~lightning_modules.ContrastiveClassifier`.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: ContrastiveLoss,
        criterion: Criterion | nn.CrossEntropyLoss,
        joint: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, criterion, **kwargs)
        self.joint = joint

    def logits(self, features: Tensor) -> Tensor:
        return super().logits(features if self.joint else features.detach())
