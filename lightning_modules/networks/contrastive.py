"""What contrastive methods train: an encoder, a classifier, and a projector."""

from __future__ import annotations

import copy
import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.timm_network import TimmNetwork


class ContrastiveNetwork(nn.Module):
    """An encoder with a classifier and with a projector to the unit sphere.

    Optionally, a predictor follows the projector, for queries alone: the keys that they are
    compared with are projected only (https://arxiv.org/abs/2104.02057, section 3).

    Args:
        encoder: Images to vectors (B, C); its own classifier is removed.
        num_classes: K; the command line takes it from the data.
        embedding: D, the dimensions of the sphere.
        hidden: Width of projector and predictor between their layers; C if not given.
        layers: Number of linear layers of the projector, a ReLU between any two; 0 is no
            projector, for methods that train encoder and classifier alone.
        norm: Batch norm of projector and predictor. ``hidden``: before every ReLU, as in PaCo's
            published code. ``all``: also after the last layer, there without scale and shift,
            and no linear layer has a bias, as in the published code of MoCo v3 and of SPMix.
        predictor_layers: Number of linear layers of the predictor, from D to D and built like the
            projector; 0 is no predictor.

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
        norm: Literal["hidden", "all"] | None = None,
        predictor_layers: int = 0,
    ) -> None:
        super().__init__()
        encoder.model.reset_classifier(0)
        self.encoder, self.embedding, width = encoder, embedding, encoder.width
        self.classifier: nn.Module = nn.Linear(width, num_classes)
        hidden = hidden or width
        self.projector = perceptron(width, hidden, embedding, layers=layers, norm=norm)
        self.predictor = perceptron(
            embedding, hidden, embedding, layers=predictor_layers, norm=norm
        )

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to vectors (B, C)."""
        return self.encoder.encode(images)

    def classify(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to logits (B, K)."""
        return self.classifier(features)

    def project(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to embeddings (B, D) of length 1, float32; those of keys."""
        return F.normalize(self.projector(features).float(), dim=1)

    def predict(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to embeddings (B, D) of queries: behind the predictor, if there is one."""
        return F.normalize(self.predictor(self.projector(features)).float(), dim=1)

    def key_network(self) -> ContrastiveNetwork:
        """A copy for keys: without predictor, and without gradient."""
        copied = copy.deepcopy(self).requires_grad_(False)
        copied.predictor = nn.Sequential()
        return copied

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.encode(images))


def perceptron(
    width: int, hidden: int, out: int, *, layers: int, norm: Literal["hidden", "all"] | None
) -> nn.Sequential:
    """Linear layers with ReLU between them, and batch norm as in :class:`ContrastiveNetwork`."""
    found = nn.Sequential()
    widths = [width, *[hidden] * (layers - 1), out] if layers else []
    for number, (a, b) in enumerate(itertools.pairwise(widths), 1):
        found.append(nn.Linear(a, b, bias=norm != "all"))
        if number < layers:
            found.extend([nn.BatchNorm1d(b), nn.ReLU()] if norm else [nn.ReLU()])
        elif norm == "all":
            found.append(nn.BatchNorm1d(b, affine=False))
    return found


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

    In the published code (https://github.com/FlamieZhu/Balanced-Contrastive-Learning) both
    projectors have batch norm. Here the first has it with ``norm`` ``hidden``, of the views that
    are compared, where the code's statistics are of the classified view too. The second has layer
    norm, because statistics of batch norm would be those of K prototypes.

    Args:
        encoder: As for :class:`ContrastiveNetwork`.
        num_classes: K; the command line takes it from the data.
        embedding: D.
        **kwargs: As for :class:`ContrastiveNetwork`; BCL has no predictor.
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
