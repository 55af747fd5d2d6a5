"""BBN: two branches, from the natural to the reversed distribution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.networks.cbam import channels, drop_head
from lightning_modules.networks.timm_network import TimmNetwork


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a skip; (B, C, h, w) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.convolutions(features))


class BBNNetwork(nn.Module):
    """A shared encoder, a residual block for each branch, and one classifier of both.

    Args:
        encoder: Any timm network with a convolutional feature map; its own classifier is removed.
        num_classes: K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) to logits (B, K), both branches counted alike (alpha = 1/2).
    """

    def __init__(self, encoder: TimmNetwork, num_classes: int = 7) -> None:
        super().__init__()
        drop_head(encoder)
        self.encoder, width = encoder, channels(encoder)
        self.conventional, self.rebalancing = ResidualBlock(width), ResidualBlock(width)
        self.classifier = nn.Linear(2 * width, num_classes)

    def mixed(self, natural: Tensor, reversed_: Tensor, alpha: float) -> Tensor:
        """Logits (B, K) of 2 [alpha f_c; (1 - alpha) f_r], each of its own images (B, 3, H, W)."""
        features = self.encoder.features(torch.cat([natural, reversed_]))
        first, second = features.chunk(2)
        f_c, f_r = (
            branch(part).mean((2, 3))
            for branch, part in ((self.conventional, first), (self.rebalancing, second))
        )
        return self.classifier(2 * torch.cat([alpha * f_c, (1 - alpha) * f_r], dim=1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder.features(images)
        pooled = [b(features).mean((2, 3)) for b in (self.conventional, self.rebalancing)]
        return self.classifier(torch.cat(pooled, dim=1))


class BBN(Classifier):
    """Bilateral-branch network (https://arxiv.org/abs/1912.02413, eq. 1 to 3).

    Needs batches of :class:`datamodules.samplers.Bilateral`: even positions of the natural, odd
    ones of the reversed distribution. The loss is alpha l(z, y_c) + (1 - alpha) l(z, y_r), and
    alpha = 1 - (t / T)^2 falls with epoch t.

    Args:
        network: Its ``mixed`` takes both halves and alpha.
        horizon: T over the number of epochs; the published code trains 90 of 100.
        **kwargs: As for :class:`~lightning_modules.Classifier`.
    """

    mixes = False

    def __init__(self, network: nn.Module, horizon: float = 10 / 9, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.horizon = horizon

    @property
    def alpha(self) -> float:
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ModelError("BBN's branches take turns by the epoch: set trainer.max_epochs.")
        return 1 - (self.current_epoch / (self.horizon * epochs)) ** 2

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if len(batch["label"]) % 2:
            raise ModelError("BBN takes its batches in halves: make data.batch_size even.")
        network: Any = self.network
        (natural, y_c), (reversed_, y_r) = (
            (batch["image"][first::2], batch["label"][first::2]) for first in (0, 1)
        )
        alpha = self.alpha
        logits = network.mixed(natural, reversed_, alpha)
        loss = alpha * self.criterion(logits, y_c) + (1 - alpha) * self.criterion(logits, y_r)
        self.log("train/loss", loss)
        return loss
