"""ProCo: contrastive learning with class prototypes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_modules.batches import Batch
from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.losses.contrastive import ContrastiveBatch
from lightning_modules.losses.criterion import ContrastiveLoss
from lightning_modules.networks.contrastive import ContrastiveNetwork
from lightning_modules.networks.momentum_queue import MomentumPrototypes


class ProCo(ContrastiveClassifier):
    """Prototype-aware contrastive learning in the style of ProCo (Yang et al., MICCAI 2022).

    The published code (https://github.com/skyz215/ProCo) has the model and its evaluation, but not
    its training. This module takes from it the key network, a queue of 1,024 keys, T 0.07, D 128,
    and class prototypes among the keys; classes are recalibrated by class means in the denominator.
    Two choices are ours: prototypes are moving means of the key network's embeddings, and there are
    no adversarial instances of them.

    Args:
        network: Encoder, classifier and projector.
        contrastive: Contrastive loss, such as
            :class:`~lightning_modules.losses.BalancedContrastiveLoss`.
        num_classes: Number of classes K; the command line takes it from the data.
        queue_size: Number of keys Q in the queue, at least 0; 0 is no queue.
        momentum: Momentum m of the key network, in [0, 1]; None is no key network.
        prototype_momentum: Weight of the old prototype when its class is in the batch, in [0, 1).
        **kwargs: As for :class:`~lightning_modules.ContrastiveClassifier`.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: ContrastiveLoss,
        num_classes: int = 7,
        queue_size: int = 1024,
        momentum: float | None = 0.999,
        prototype_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, queue_size=queue_size, momentum=momentum, **kwargs)
        self.prototypes = MomentumPrototypes(num_classes, network.embedding, prototype_momentum)

    def compare(self, first: Batch, second: Batch) -> tuple[ContrastiveBatch, Tensor]:
        compared, keys = super().compare(first, second)
        return compared.beside(self.prototypes.embedding, self.prototypes.label), keys

    def remember(self, keys: Tensor, label: Tensor) -> None:
        super().remember(keys, label)
        self.prototypes.update(keys, label)
