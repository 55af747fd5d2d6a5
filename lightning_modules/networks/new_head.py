"""A new head on the vectors of a finished network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_modules.networks.heads import Head, LinearHead
from lightning_modules.networks.network import Network, VectorNetwork


class NewHead(Network):
    """The network of a first stage with another classifier, which starts anew.

    With a linear head that is trained on a class-balanced distribution it is classifier
    re-training, cRT (https://arxiv.org/abs/1910.09217, section 4).

    Args:
        network: Network of the first stage; its own classifier is kept but not used.
        num_classes: Number of classes K.
        head: Factory of the head from the size of the vectors and the number of classes; None is
            :class:`~lightning_modules.networks.heads.LinearHead`.

    Shape:
        Images (B, 3, H, W) to logits (B, K).
    """

    def __init__(
        self,
        network: VectorNetwork,
        num_classes: int = 7,
        head: Callable[[int, int], Head] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = (head or LinearHead)(network.linear.in_features, num_classes)

    def vectors(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the vectors (B, C) of the head."""
        return self.network.vectors(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.vectors(images))
