"""ProCo: contrastive learning with class prototypes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.losses.contrast import Contrast
from lightning_modules.networks.contrastive import ContrastiveNetwork
from lightning_modules.networks.momentum_queue import MomentumPrototypes


class ProCo(ContrastiveClassifier):
    """In the style of ProCo, prototype-aware contrastive learning of medical images.

    Of Yang et al., MICCAI 2022 (https://github.com/skyz215/ProCo), model and evaluation are
    published, training is not. From there: key network, a queue of 1,024, T 0.07, D 128, class
    prototypes among the keys, and classes recalibrated, here by class means in the denominator.
    Ours: prototypes are moving means of the key network's embeddings, and there are no adversarial
    instances of them.

    Args:
        network: Encoder, classifier and projector.
        contrastive: As :class:`~lightning_modules.losses.BalancedContrastiveLoss`.
        num_classes: K; the command line takes it from the data.
        queue_size: Q.
        momentum: m of the key network.
        prototype_momentum: What remains of a prototype where its class is in the batch.
        **kwargs: As for :class:`ContrastiveClassifier`.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: nn.Module,
        num_classes: int = 7,
        queue_size: int = 1024,
        momentum: float | None = 0.999,
        prototype_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, queue_size=queue_size, momentum=momentum, **kwargs)
        self.prototypes = MomentumPrototypes(num_classes, network.embedding, prototype_momentum)

    def compare(
        self, first: dict[str, Tensor], second: dict[str, Tensor]
    ) -> tuple[Contrast, Tensor]:
        contrast, keys = super().compare(first, second)
        return contrast.beside(self.prototypes.embedding, self.prototypes.label), keys

    def remember(self, keys: Tensor, label: Tensor) -> None:
        super().remember(keys, label)
        self.prototypes.update(keys, label)
