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
