"""Base classes of networks: what a module accepts as its ``network``."""

from __future__ import annotations

from timm.layers.linear import Linear as TimmLinear
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.taxonomy import Taxonomy


class Network(nn.Module):
    """A neural network: images (B, 3, H, W) in [0, 1] to logits (B, K)."""


class VectorNetwork(Network):
    """A network that classifies a vector of each image, so that its classifier can be exchanged."""

    def vectors(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the vectors (B, C) that the classifier receives."""
        raise NotImplementedError

    @property
    def classifier(self) -> nn.Module:
        """The last layer: vectors (B, C) to logits (B, K)."""
        raise NotImplementedError

    @property
    def linear(self) -> nn.Linear:
        """The last layer, if it is linear: logits W f + b of a vector f.

        Raises:
            ModelError: It is not, such as a cosine classifier.
        """
        classifier = self.classifier
        if type(classifier) in (nn.Linear, TimmLinear):  # other subclasses may compute cosines
            assert isinstance(classifier, nn.Linear)
            return classifier
        raise ModelError(
            f"The classifier of this {type(self).__name__} is a {type(classifier).__name__}, which "
            "has no weights W and b of a linear classifier: start from a run with a linear one, "
            "such as finetune_ce or probe_ce."
        )


class HierarchicalNetwork(Network):
    """A network with logits for every level of a taxonomy.

    Attributes:
        taxonomy: Levels and nodes that the network classifies.
    """

    taxonomy: Taxonomy

    def levels(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to logits (B, C) over the C nodes of each level, coarse to fine."""
        raise NotImplementedError
