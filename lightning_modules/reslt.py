"""ResLT: residual learning for the rarer classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.classifier import Classifier
from lightning_modules.losses.distributed import global_sum
from lightning_modules.metrics import SHOTS
from lightning_modules.networks.cbam import channels, drop_head
from lightning_modules.networks.timm_network import TimmNetwork


class ResLTNetwork(nn.Module):
    """Three branches on one encoder, which share a classifier.

    A 1 x 1 convolution with batch norm and ReLU gives each branch its own features. The published
    code pools before it in evaluation and after it in training, which is not the same through a
    ReLU; this pools after it in both.

    In evaluation mode the classifier is tau-normalised, as in the published code
    (https://github.com/jiequancui/ResLT; https://arxiv.org/abs/1910.09217): it multiplies
    by w_c / ||w_c||^gamma and has no bias. So it is in validation as in the test.

    Args:
        encoder: Any timm network with a convolutional feature map; its own classifier is removed.
        num_classes: K; the command line takes it from the data.
        gamma: Exponent of the norm of a class's weights; 0 leaves out the bias alone, and None
            evaluates the classifier as it was trained. Published are 0.7 for ImageNet-LT with
            ResNeXt-50 and -101 and 0.3 with ResNet-10, 0.3 (training) and 0 (evaluation) for
            iNaturalist, and none for CIFAR.

    Shape:
        Images (B, 3, H, W) to logits (B, K), the sum of the branches.
    """

    def __init__(
        self, encoder: TimmNetwork, num_classes: int = 7, gamma: float | None = 0.7
    ) -> None:
        super().__init__()
        drop_head(encoder)
        self.encoder, width = encoder, channels(encoder)
        self.specialise = nn.Sequential(
            nn.Conv2d(width, 3 * width, 1, bias=False), nn.BatchNorm2d(3 * width), nn.ReLU()
        )
        self.classifier = nn.Linear(width, num_classes)
        self.gamma = gamma

    def branches(self, images: Tensor) -> Tensor:
        """Logits (3, B, K) of the branches for all, for medium and few, and for few."""
        features = self.specialise(self.encoder.features(images)).mean((2, 3))  # (B, 3C)
        return self.classify(torch.stack(features.chunk(3, dim=1)))

    def classify(self, features: Tensor) -> Tensor:
        """Features (..., C) to logits (..., K), by normalised weights in evaluation mode."""
        if self.training or self.gamma is None:
            return self.classifier(features)
        weight = self.classifier.weight
        return F.linear(features, weight / weight.norm(dim=1, keepdim=True) ** self.gamma)

    def forward(self, images: Tensor) -> Tensor:
        return self.branches(images).sum(0)


class ResLT(Classifier):
    """ResLT (https://arxiv.org/abs/2101.10633, eq. 3 to 6).

    The branches see nested sets of classes: all; medium and few; few. Their cross-entropies are
    added over their own images and divided by the number of all images that any of them saw.
    Medium and few are the classes of SPMix's table, not the published code's 605 and 220 of
    ImageNet-LT's 1,000; its training is from random weights, in steps of 256 images.

    Args:
        network: Its ``branches`` gives logits (3, B, K), its ``forward`` their sum.
        beta: Weight of the branches' own losses; 0 trains the sum alone. The published code has
            0.99 for ImageNet-LT, 0.85 for iNaturalist; its README calls it alpha.
        **kwargs: As for :class:`~lightning_modules.Classifier`.
    """

    mixes = False

    def __init__(
        self, network: nn.Module, beta: float = 0.99, class_names: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(network, class_names=class_names, **kwargs)
        self.beta = beta
        groups = (list(class_names), SHOTS["medium"] + SHOTS["few"], SHOTS["few"])
        seen = torch.tensor([[name in group for name in class_names] for group in groups])
        self.register_buffer("seen", seen, persistent=False)  # (3, K), by branch and class

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        branches: Tensor = self.network.branches(batch["image"])  # type: ignore[operator]
        fusion = self.criterion(branches.sum(0), batch["label"])
        loss = (1 - self.beta) * fusion + self.beta * self.individual(branches, batch["label"])
        self.log("train/loss", loss)
        return loss

    def individual(self, branches: Tensor, label: Tensor) -> Tensor:
        """The branches' own losses: logits (3, B, K) and labels (B,) to a scalar."""
        loss = partial(F.cross_entropy, target=label, reduction="none")
        losses = torch.stack([loss(logits) for logits in branches.float()])  # (3, B)
        seen: Any = self.seen
        seen = seen[:, label]  # (3, B)
        # Divided by the images of all processes, of which Lightning averages the gradients.
        return global_sum((losses * seen).sum()) / global_sum(seen.sum().float())
