"""Networks of contrastive methods: encoder, classifier and projector."""

from __future__ import annotations

import copy
import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.network import Network
from lightning_modules.networks.timm_network import TimmNetwork


class ContrastiveNetwork(Network):
    """An encoder with a classifier and with a projector to the unit sphere.

    Optionally, a predictor follows the projector for queries; the keys that queries are compared
    with are only projected (https://arxiv.org/abs/2104.02057, section 3).

    Args:
        encoder: Network from images to vectors (B, C); its classifier is removed.
        num_classes: Number of classes K; the command line takes it from the data.
        embedding: Dimension D of the embeddings, at least 1.
        hidden: Width of the hidden layers of projector and predictor, at least 1; None is C.
        layers: Number of linear layers of the projector, with ReLUs in between; 0 is no
            projector, for methods that only train encoder and classifier.
        norm: Batch norm of projector and predictor; None is none. ``hidden``: before every ReLU,
            as in PaCo's published code. ``all``: also after the last layer, there without scale
            and shift, and linear layers without bias, as in the code of MoCo v3 and of SPMix.
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
        width = encoder.width
        self.encoder = encoder
        self.embedding = embedding
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
        """Vectors (B, C) to embeddings (B, D) of keys, of length 1, float32."""
        return F.normalize(self.projector(features).float(), dim=1)

    def predict(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to embeddings (B, D) of queries, through the predictor if there is one."""
        return F.normalize(self.predictor(self.projector(features)).float(), dim=1)

    def key_network(self) -> ContrastiveNetwork:
        """A copy for keys, without predictor and without gradient."""
        copied = copy.deepcopy(self).requires_grad_(False)
        copied.predictor = nn.Sequential()
        return copied

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.encode(images))


def perceptron(
    width: int, hidden: int, out: int, *, layers: int, norm: Literal["hidden", "all"] | None
) -> nn.Sequential:
    """Linear layers with ReLU between them, and batch norm as in :class:`ContrastiveNetwork`."""
    network = nn.Sequential()
    widths = [width, *[hidden] * (layers - 1), out] if layers else []
    for number, (a, b) in enumerate(itertools.pairwise(widths), 1):
        network.append(nn.Linear(a, b, bias=norm != "all"))
        if number < layers:
            network.extend([nn.BatchNorm1d(b), nn.ReLU()] if norm else [nn.ReLU()])
        elif norm == "all":
            network.append(nn.BatchNorm1d(b, affine=False))
    return network


class CosineClassifier(nn.Linear):
    """Cosines with a weight vector per class, times a scale; computed in float32.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        scale: Largest logit, greater than 0; 30 in BCL's published code.

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
    """A contrastive network with a cosine classifier and class prototypes.

    A second projector computes the prototypes from the weights of the classifier. In the published
    code (https://github.com/FlamieZhu/Balanced-Contrastive-Learning) both projectors have batch
    norm. Here the first one has it with ``norm`` ``hidden``, over the views that are compared; in
    the code its statistics include the classified view. The second one has layer norm, because the
    statistics of batch norm would be over K prototypes only.

    Args:
        encoder: As for :class:`ContrastiveNetwork`.
        num_classes: Number of classes K; the command line takes it from the data.
        embedding: Dimension D of the embeddings, at least 1.
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
        """Embeddings (K, D) of the classes, of length 1, float32."""
        return F.normalize(self.prototype_projector(self.classifier.weight).float(), dim=1)
