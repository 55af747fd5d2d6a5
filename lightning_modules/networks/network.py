"""Base classes of networks: what a module accepts as its ``network``."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.taxonomy import Taxonomy


class Network(nn.Module):
    """A neural network: images (B, 3, H, W) in [0, 1] to logits (B, K)."""


class HierarchicalNetwork(Network):
    """A network with logits for every level of a taxonomy.

    Attributes:
        taxonomy: Levels and nodes that the network classifies.
    """

    taxonomy: Taxonomy

    def levels(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to logits (B, C) over the C nodes of each level, coarse to fine."""
        raise NotImplementedError
