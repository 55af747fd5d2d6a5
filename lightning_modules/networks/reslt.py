"""Network of ResLT: an encoder with three branches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.network import Network
from lightning_modules.networks.tau_normalization import tau_normalized
from lightning_modules.networks.timm_network import TimmNetwork


class ResLTNetwork(Network):
    """An encoder with three branches that share a classifier.

    A 1 x 1 convolution with batch norm and ReLU computes the features of each branch. The
    published code pools before this convolution in evaluation and after it in training, which
    differ because of the ReLU; this class pools after it in both.

    In evaluation mode the classifier is tau-normalized, as in the published code
    (https://github.com/jiequancui/ResLT; https://arxiv.org/abs/1910.09217): its weights are
    w_c / ||w_c||^gamma and it has no bias. This applies to validation and test alike.

    Args:
        encoder: A timm network with a convolutional feature map; its classifier is removed.
        num_classes: Number of classes K; the command line takes it from the data.
        gamma: Exponent of the norm of the weights of a class. 0 only leaves out the bias; None
            evaluates the classifier as it was trained. The published values are 0.7 for
            ImageNet-LT with ResNeXt-50 and -101 and 0.3 with ResNet-10, 0.3 (training) and 0
            (evaluation) for iNaturalist, and none for CIFAR.

    Shape:
        Images (B, 3, H, W) to logits (B, K), the sum over the branches.
    """

    def __init__(
        self, encoder: TimmNetwork, num_classes: int = 7, gamma: float | None = 0.7
    ) -> None:
        super().__init__()
        encoder.drop_head()
        width = encoder.channels
        self.encoder = encoder
        self.specialise = nn.Sequential(  # the name is in the checkpoints
            nn.Conv2d(width, 3 * width, 1, bias=False),
            nn.BatchNorm2d(3 * width),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(width, num_classes)
        self.gamma = gamma

    def branches(self, images: Tensor) -> Tensor:
        """Logits (3, B, K) of the branches: all classes, medium and few, few."""
        features = self.specialise(self.encoder.features(images)).mean((2, 3))  # (B, 3C)
        return self.classify(torch.stack(features.chunk(3, dim=1)))

    def classify(self, features: Tensor) -> Tensor:
        """Features (..., C) to logits (..., K), with normalized weights in evaluation mode."""
        if self.training or self.gamma is None:
            return self.classifier(features)
        return F.linear(features, tau_normalized(self.classifier.weight, self.gamma))

    def forward(self, images: Tensor) -> Tensor:
        return self.branches(images).sum(0)
