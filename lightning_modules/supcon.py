"""SupCon: supervised contrastive learning, with a classifier or before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.networks.contrastive import ContrastiveNetwork


class SupCon(ContrastiveClassifier):
    """Supervised contrastive learning (https://arxiv.org/abs/2004.11362).

    The paper trains encoder and projector first, and then a classifier on the frozen encoder. So
    it is with ``joint`` false, except that the classifier already learns in the first stage,
    beside the encoder, which gets no gradient from it: so the first stage has a validation.

    The published code (https://github.com/HobbitLong/SupContrast) trains ResNet-50 from random
    weights, 1,000 epochs in batches of 1,024 with SGD at T 0.1, on crops of 20 to 100 %, four of
    five with jitter, also of hue; and the classifier 100 epochs in batches of 512 with SGD, at a
    rate that falls in steps. The experiments here have SPMix's network, optimizer, batch and
    epochs, T 0.07, which is the code's default, PaCo's crops, and 20 epochs of AdamW for the
    classifier.

    Args:
        network: Encoder, classifier and projector.
        contrastive: As :class:`~lightning_modules.losses.SupConLoss`.
        criterion: Logits (B, K) and labels (B,) to a scalar.
        joint: Whether the encoder learns from both losses, in one stage.
        **kwargs: As for :class:`ContrastiveClassifier`.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: nn.Module,
        criterion: nn.Module,
        joint: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, criterion, **kwargs)
        self.joint = joint

    def logits(self, features: Tensor) -> Tensor:
        return super().logits(features if self.joint else features.detach())
