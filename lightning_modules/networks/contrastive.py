"""What contrastive methods train: an encoder, a classifier, and a projector."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.timm_network import TimmNetwork


class ContrastiveNetwork(nn.Module):
    """An encoder with a classifier and with a projector to the unit sphere.

    Args:
        encoder: Images to vectors (B, C); its own classifier is removed.
        num_classes: K; the command line takes it from the data.
        embedding: D, the dimensions of the sphere.
        hidden: Width of the projector between its layers; C if not given.
        layers: Linear layers of the projector, a ReLU between any two.

    Shape:
        Images (B, 3, H, W) to logits (B, K).
    """

    def __init__(
        self,
        encoder: TimmNetwork,
        num_classes: int = 7,
        embedding: int = 128,
        hidden: int | None = None,
        layers: int = 2,
    ) -> None:
        super().__init__()
        encoder.model.reset_classifier(0)
        self.encoder, self.embedding, width = encoder, embedding, encoder.width
        self.classifier: nn.Module = nn.Linear(width, num_classes)
        widths = [width, *[hidden or width] * (layers - 1), embedding]
        linear = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        self.projector = nn.Sequential(
            *(module for layer in linear[:-1] for module in (layer, nn.ReLU())), linear[-1]
        )

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to vectors (B, C)."""
        return self.encoder.encode(images)

    def classify(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to logits (B, K)."""
        return self.classifier(features)

    def project(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to embeddings (B, D) of length 1, float32."""
        return F.normalize(self.projector(features).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.encode(images))
