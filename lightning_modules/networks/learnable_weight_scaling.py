"""Learnable weight scaling of a classifier's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnableWeightScaling(nn.Module):
    """Learnable weight scaling, LWS (https://arxiv.org/abs/1910.09217, section 4.3).

    Scales the weight vector of each class by a learned factor, which is to scale its logit; used
    by MiSLAS in its second stage.

    Args:
        network: Images to logits (B, K).
        num_classes: K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) to logits (B, K). At first the logits are those of ``network``.
    """

    def __init__(self, network: nn.Module, num_classes: int = 7) -> None:
        super().__init__()
        self.network = network
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * self.scale
