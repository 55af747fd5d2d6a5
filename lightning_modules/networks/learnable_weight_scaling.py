"""Learnable weight scaling of a classifier's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnableWeightScaling(nn.Module):
    """Learnable weight scaling, LWS (https://arxiv.org/abs/1910.09217, section 4.3).

    Scales the weight vector of each class by a learned factor, which is to scale its logit; used
    by MiSLAS in its second stage.

    MiSLAS's published code (https://github.com/dvlab-research/MiSLAS) has 180 epochs of stage 1,
    from random weights, and 10 of stage 2, in batches of 256 at a rate of 0.1 that falls by a
    cosine at once, where the experiments here warm up. Shifted batch norm is an option of
    :class:`~callbacks.stages.freeze.Freeze`, the way labels are smoothed one of
    :class:`~lightning_modules.losses.LabelAwareSmoothingLoss`.

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
