"""ResNet on latents of a codec."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.timm_network import TimmNetwork


class LatentResNet(TimmNetwork):
    """A ResNet whose input is a latent (cResNet, https://arxiv.org/abs/1803.06131, sec. 4).

    A latent already has a quarter of the image's side, which the stem of a ResNet reduces an image
    to. One 3 x 3 convolution therefore replaces the stem. The stages keep their published weights.

    Args:
        name: timm's name of a ResNet.
        latent_channels: Channels C of the latent, at least 1.
        num_classes: Number of classes K; the command line takes it from the data.
        **kwargs: As for :class:`TimmNetwork`.

    Shape:
        Latents (B, C, h, w) to logits (B, num_classes).
    """

    def __init__(
        self, name: str, latent_channels: int, num_classes: int = 7, **kwargs: Any
    ) -> None:
        super().__init__(name, num_classes=num_classes, **kwargs)
        if not hasattr(self.model, "maxpool"):
            raise ModelError(
                f"{name} has no stem of a ResNet to replace: choose a ResNet, such as resnet18."
            )
        width = self.model.bn1.num_features
        self.model.conv1 = nn.Conv2d(latent_channels, width, 3, padding=1, bias=False)
        self.model.maxpool = nn.Identity()
        self.model.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """The last feature map (B, C', h', w') of latents, which are not normalized."""
        return self.model.forward_features(images)
