"""BBN: two branches, from the natural to the reversed distribution."""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.networks.cbam import channels, drop_head
from lightning_modules.networks.timm_network import TimmNetwork


class BBNNetwork(nn.Module):
    """A ResNet that ends in two branches, and one classifier of both.

    The branches share all but the last residual block (section 4.2): each has one of its own in
    its place, a bottleneck in ResNet-50, two plain 3 x 3 convolutions in ResNet-18. Both start
    from the weights of the block that they replace, which the published code leaves random.

    Args:
        encoder: timm's ResNet, or one of its relatives; its own classifier is removed.
        num_classes: K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) to logits (B, K), both branches counted alike (alpha = 1/2).

    Raises:
        ModelError: The encoder is no ResNet.
    """

    def __init__(self, encoder: TimmNetwork, num_classes: int = 7) -> None:
        super().__init__()
        if not isinstance(encoder.model, ResNet):
            raise ModelError(
                "The branches of BBN are the last residual block: set its encoder to a ResNet, "
                "such as resnet50.a1_in1k."
            )
        drop_head(encoder)
        self.encoder = encoder
        blocks: Any = encoder.model.layer4
        *shared, last = blocks
        encoder.model.layer4 = nn.Sequential(*shared)
        self.conventional, self.rebalancing = last, copy.deepcopy(last)
        self.classifier = nn.Linear(2 * channels(encoder), num_classes)

    def mixed(self, natural: Tensor, reversed_: Tensor, alpha: float) -> Tensor:
        """Logits (B, K) of 2 [alpha f_c; (1 - alpha) f_r], each of its own images (B, 3, H, W)."""
        # One after the other, so that batch norm sees one distribution at a time.
        f_c = self.conventional(self.encoder.features(natural)).mean((2, 3))
        f_r = self.rebalancing(self.encoder.features(reversed_)).mean((2, 3))
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

    In the published code (https://github.com/Megvii-Nanjing/BBN) an epoch has every image once and
    as many of the reversed distribution, where here it has half of each; its ResNet-50 starts from
    random weights, and the rate falls in steps.

    Args:
        network: A :class:`BBNNetwork`, whose ``mixed`` takes both halves and alpha.
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
