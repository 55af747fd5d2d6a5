"""Classifiers that are computed in one pass over the training images, without gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.batches import Batch
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.errors import ModelError
from lightning_modules.networks.heads import GatheringHead
from lightning_modules.networks.probe import Probe


class OnePassClassifier(DiagnosticLearner):
    """Compute the head of a probe from its training vectors: class means, or all of them.

    Set ``trainer.max_epochs`` to 1; a further epoch would start from the beginning. Optimizer and
    schedule have no effect. Logs ``train/loss``, the cross-entropy of a batch by the images so far,
    its own among them.

    Args:
        network: Probe whose head gathers vectors, such as
            :class:`~lightning_modules.networks.heads.NearestClassMean`.
        *args: As for :class:`~lightning_modules.learner.Learner`.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.

    Raises:
        ModelError: The head is trained by gradients, or several processes would each see a part.
    """

    network: Probe

    def __init__(self, network: Probe, *args: Any, **kwargs: Any) -> None:
        super().__init__(network, *args, **kwargs)
        if not isinstance(network.head, GatheringHead):
            raise ModelError(
                f"A {type(network.head).__name__} is trained by gradients: set model to "
                "lightning_modules.Classifier."
            )
        self.head = network.head

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.world_size > 1:
            raise ModelError(
                "Class means and neighbors are gathered by one process: set trainer.devices and "
                "trainer.num_nodes to 1."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if batch_idx == 0:
            self.head.reset()
        with torch.no_grad():
            vectors = self.network.vectors(batch["image"])
            self.head.gather(vectors, batch["label"])
            self.log("train/loss", F.cross_entropy(self.head(vectors), batch["label"]))
        return torch.zeros((), device=self.device, requires_grad=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Lightning needs an optimizer to count steps.
        return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)
