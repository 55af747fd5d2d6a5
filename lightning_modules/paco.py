"""PaCo and GPaCo: parametric contrastive learning."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.networks.contrastive import ContrastiveNetwork


class PaCo(ContrastiveClassifier):
    """Parametric contrastive learning, PaCo (https://arxiv.org/abs/2107.12028) and GPaCo.

    Without momentum it is GPaCo (https://arxiv.org/abs/2209.12400): one network, in which the
    views of both kinds are anchors. Unlike the published code
    (https://github.com/dvlab-research/Parametric-Contrastive-Learning), anchors are compared with
    the views of all processes, so that their number changes nothing; batch norm is not shuffled
    among processes; and the queue is empty at first. The experiments have alpha and Q of
    ImageNet-LT: see :class:`~lightning_modules.losses.PaCoLoss`.

    Args:
        network: Encoder, classifier and projector. Published projectors have 2 layers with ``norm``
            ``hidden`` for PaCo, 3 without for GPaCo.
        contrastive: As :class:`~lightning_modules.losses.PaCoLoss`.
        queue_size: Q.
        momentum: m of the key network; None is GPaCo.
        **kwargs: As for :class:`ContrastiveClassifier`.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: nn.Module,
        queue_size: int = 8192,
        momentum: float | None = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, queue_size=queue_size, momentum=momentum, **kwargs)
