"""DisAlign: input-dependent alignment of the logits of a finished network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.networks.network import Network, VectorNetwork


class DisAlign(Network):
    """Adaptive calibration of logits of DisAlign (https://arxiv.org/abs/2103.16370).

        s_c = alpha_c z_c + beta_c,    z'_c = sigma(x) s_c + (1 - sigma(x)) z_c

    alpha and beta are learned per class, the confidence sigma(x) is a logistic function of the
    vector that the classifier receives. The published code
    (https://github.com/Megvii-BaseDetection/DisAlign) for classification computes
    (1 + sigma alpha') z + sigma beta, which is the same function with alpha = 1 + alpha'; there
    alpha starts from 2, here from 1, as in its code for segmentation, so that training starts from
    the logits of the first stage. The weights of the confidence start from 0 instead of 0.1, with
    which the sum over a thousand features saturates it.

    Args:
        network: Network of the first stage.
        num_classes: Number of classes K.

    Shape:
        Images (B, 3, H, W) to logits (B, K), at first those of ``network``.
    """

    def __init__(self, network: VectorNetwork, num_classes: int = 7) -> None:
        super().__init__()
        self.network = network
        self.magnitude = nn.Parameter(torch.ones(num_classes))
        self.margin = nn.Parameter(torch.zeros(num_classes))
        self.confidence = nn.Linear(network.linear.in_features, 1)
        nn.init.zeros_(self.confidence.weight)
        nn.init.zeros_(self.confidence.bias)

    def forward(self, images: Tensor) -> Tensor:
        vectors = self.network.vectors(images)
        logits = self.network.classifier(vectors)
        confidence = self.confidence(vectors).sigmoid()  # (B, 1)
        aligned = self.magnitude * logits + self.margin
        return confidence * aligned + (1 - confidence) * logits
