"""Experts: several classifiers on one trunk, trained with different losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_modules.batches import Batch
from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.losses.experts import ExpertsLoss
from lightning_modules.networks.experts import ExpertHeads, ExpertNetwork
from lightning_modules.networks.probe import Probe


class Experts(Classifier):
    """Train several experts on one trunk by a loss of all their logits; predict by their mean.

    The loss makes the method: :class:`~lightning_modules.losses.SADELoss`,
    :class:`~lightning_modules.losses.BalPoELoss` or :class:`~lightning_modules.losses.RIDELoss`.
    All three papers predict by the mean of the logits; SADE alternatively by weights that are
    learned from the test images, without their labels (``make aggregate``).

    Args:
        network: Network with :class:`~lightning_modules.networks.ExpertHeads`: a
            :class:`~lightning_modules.networks.Probe`, or
            :class:`~lightning_modules.networks.ExpertNetwork`.
        criterion: Loss of logits (E, B, K) for labels (B,), or soft labels (B, K).
        *args: As for :class:`~lightning_modules.Classifier`.
        **kwargs: As for :class:`~lightning_modules.Classifier`.

    Raises:
        ModelError: The network has one head, or the loss is for one classifier.
    """

    network: Probe | ExpertNetwork

    def __init__(
        self, network: Probe | ExpertNetwork, criterion: ExpertsLoss, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(network, criterion, *args, **kwargs)  # type: ignore[arg-type]
        if not isinstance(network.head, ExpertHeads):
            raise ModelError(
                f"A {type(network.head).__name__} is a single classifier: set model.network.head "
                "to lightning_modules.networks.ExpertHeads."
            )
        self.heads = network.head

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.mix(batch)
        logits = self.heads.experts(self.network.vectors(batch["image"]))
        loss: Tensor = self.criterion(logits, batch["label"])
        self.log("train/loss", loss)
        return loss
