"""A ResNet of latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.timm_network import TimmNetwork


class LatentResNet(TimmNetwork):
    """A ResNet that begins where a latent is (cResNet, https://arxiv.org/abs/1803.06131, sec. 4).

    The stem, which would make maps of a quarter of the image's side out of the image, is one 3 x 3
    convolution, for a latent is of that size already. The stages keep their published weights.

    Args:
        name: timm's name of a ResNet.
        latent_channels: C.
        **kwargs: As for :class:`TimmNetwork`.

    Shape:
        Latents (B, C, h, w) to logits (B, num_classes).
    """

    def __init__(
        self, name: str, latent_channels: int, num_classes: int = 7, **kwargs: Any
    ) -> None:
        super().__init__(name, num_classes=num_classes, **kwargs)
        if not hasattr(self.model, "maxpool"):
            raise ModelError(f"{name} is no ResNet, whose stem could be replaced: take another.")
        width = self.model.bn1.num_features
        self.model.conv1 = nn.Conv2d(latent_channels, width, 3, padding=1, bias=False)
        self.model.maxpool = nn.Identity()
        self.model.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """The last feature map of latents, which have no mean and deviation to be freed of."""
        return self.model.forward_features(images)
