"""Learnable weight scaling of a classifier's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.networks.network import Network


class LearnableWeightScaling(Network):
    """Learnable weight scaling, LWS (https://arxiv.org/abs/1910.09217, section 4.3).

    Multiplies the logit of each class by a learned factor, which is the same as scaling the weight
    vector of the class. MiSLAS uses it in its second stage.

    MiSLAS's published code (https://github.com/dvlab-research/MiSLAS) trains stage 1 for 180
    epochs from random weights and stage 2 for 10 epochs, in batches of 256 with a learning rate of
    0.1 and a cosine schedule without warm-up; the recipes here warm up. Shifted batch norm is an
    option of :class:`~callbacks.Freeze`, label smoothing one of
    :class:`~lightning_modules.losses.LabelAwareSmoothingLoss`.

    Args:
        network: Network from images to logits (B, K).
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) to logits (B, K), at first those of ``network``.
    """

    def __init__(self, network: Network, num_classes: int = 7) -> None:
        super().__init__()
        self.network = network
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * self.scale
