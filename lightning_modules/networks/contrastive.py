"""What contrastive methods train: an encoder, a classifier, and a projector."""

from __future__ import annotations

import itertools
from typing import Any

import torch
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
        layers: Linear layers of the projector, a ReLU between any two; 0 is none, for methods
            that train encoder and classifier alone.

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
        self.projector = nn.Sequential()
        if layers:
            widths = [width, *[hidden or width] * (layers - 1), embedding]
            linear = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
            hidden_layers = (module for layer in linear[:-1] for module in (layer, nn.ReLU()))
            self.projector.extend([*hidden_layers, linear[-1]])

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


class CosineClassifier(nn.Linear):
    """Cosines to a weight vector for each class, times a scale; computed in float32.

    Args:
        width: C.
        num_classes: K.
        scale: Largest logit; 30 in BCL's published code.

    Shape:
        Vectors (B, C) to logits (B, K) in [-scale, scale].
    """

    def __init__(self, width: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__(width, num_classes, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            vectors, classes = (F.normalize(x.float(), dim=1) for x in (features, self.weight))
            return self.scale * (vectors @ classes.T)


class BCLNetwork(ContrastiveNetwork):
    """With a cosine classifier, from whose weights a second projector makes class prototypes.

    Both projectors are free of batch norm, which the published code has: its statistics would be
    those of K prototypes. The second has layer norm instead.

    Args:
        encoder: As for :class:`ContrastiveNetwork`.
        num_classes: K; the command line takes it from the data.
        embedding: D.
        **kwargs: As for :class:`ContrastiveNetwork`.
    """

    def __init__(
        self, encoder: TimmNetwork, num_classes: int = 7, embedding: int = 1024, **kwargs: Any
    ) -> None:
        super().__init__(encoder, num_classes, embedding, **kwargs)
        width = encoder.width
        self.classifier = CosineClassifier(width, num_classes)
        self.prototype_projector = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, embedding)
        )

    def prototypes(self) -> Tensor:
        """Embeddings (K, D) of length 1 of the classes, float32."""
        return F.normalize(self.prototype_projector(self.classifier.weight).float(), dim=1)
