"""Classifiers that are computed in one pass over the training images, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.batches import Batch
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.errors import ModelError
from lightning_modules.networks.heads import GatheringHead
from lightning_modules.networks.network import VectorNetwork
from lightning_modules.networks.new_head import NewHead
from lightning_modules.networks.probe import Probe


class Untrained(DiagnosticLearner):
    """Base of classifiers that are computed, not trained; their network is in evaluation mode.

    Set ``trainer.max_epochs`` to 1. Optimizer and schedule have no effect.

    Args:
        network: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.
        *args: As for :class:`~lightning_modules.learner.Learner`.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.

    Raises:
        ModelError: Several processes would each see a part of the images.
    """

    def __init__(self, network: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(network, *args, **kwargs)
        self.network.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.network.eval()
        return self

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.world_size > 1:
            raise ModelError(
                f"{type(self).__name__} is computed by one process, which must see all images: "
                "set trainer.devices and trainer.num_nodes to 1."
            )

    def zero_loss(self) -> Tensor:
        """A loss of 0, because Lightning counts steps by their losses."""
        return torch.zeros((), device=self.device, requires_grad=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Lightning needs an optimizer to count steps.
        return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)


class OnePassClassifier(Untrained):
    """Compute a head from the vectors of the training images: class means, or all of them.

    A further epoch would start from the beginning. Logs ``train/loss``, the cross-entropy of a
    batch by the images so far, its own among them.

    Args:
        network: Probe whose head gathers vectors, such as
            :class:`~lightning_modules.networks.heads.NearestClassMean`, or the network of a first
            stage, which then needs ``head``.
        *args: As for :class:`~lightning_modules.learner.Learner`.
        head: Factory of a new head from the size of the vectors and the number of classes; None
            computes the head of a probe.
        class_names: Names of the K classes; the command line takes them from the data.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.

    Raises:
        ModelError: The head is trained by gradients, or several processes would each see a part.
    """

    network: Probe | NewHead

    def __init__(
        self,
        network: VectorNetwork,
        *args: Any,
        head: Callable[[int, int], GatheringHead] | None = None,
        class_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        headed = NewHead(network, len(class_names), head) if head else network
        super().__init__(headed, *args, class_names=class_names, **kwargs)
        known = getattr(headed, "head", headed)
        if not isinstance(known, GatheringHead):
            raise ModelError(
                f"A {type(known).__name__} is trained by gradients: set model to "
                "lightning_modules.Classifier, or model.head to a head that is computed, such as "
                "lightning_modules.networks.NearestClassMean."
            )
        self.head = known

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if batch_idx == 0:
            self.head.reset()
        with torch.no_grad():
            vectors = self.network.vectors(batch["image"])
            self.head.gather(vectors, batch["label"])
            self.log("train/loss", F.cross_entropy(self.head(vectors), batch["label"]))
        return self.zero_loss()
