"""PaCo and GPaCo: parametric contrastive learning."""

from __future__ import annotations

from typing import Any

from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.losses.criterion import ContrastiveLoss
from lightning_modules.networks.contrastive import ContrastiveNetwork


class PaCo(ContrastiveClassifier):
    """Parametric contrastive learning, PaCo (https://arxiv.org/abs/2107.12028) and GPaCo.

    Without momentum it is GPaCo (https://arxiv.org/abs/2209.12400): a single network, in which both
    views are anchors. Unlike in the published code
    (https://github.com/dvlab-research/Parametric-Contrastive-Learning), anchors are compared with
    the views of all processes, so that results do not depend on the number of processes; batch norm
    is not shuffled among processes; and the queue starts empty. The recipes use alpha and Q of
    ImageNet-LT: see :class:`~lightning_modules.losses.PaCoLoss`.

    Args:
        network: Encoder, classifier and projector. Published projectors have 2 layers with ``norm``
            ``hidden`` for PaCo, and 3 layers without norm for GPaCo.
        contrastive: Contrastive loss; in the papers :class:`~lightning_modules.losses.PaCoLoss`.
        queue_size: Number of keys Q in the queue, at least 0; 0 is no queue.
        momentum: Momentum m of the key network, in [0, 1]; None is GPaCo.
        **kwargs: As for :class:`~lightning_modules.ContrastiveClassifier`.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: ContrastiveLoss,
        queue_size: int = 8192,
        momentum: float | None = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, queue_size=queue_size, momentum=momentum, **kwargs)
