"""Network of BBN: a residual network with two branches."""

from __future__ import annotations

import copy

import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.network import Network
from lightning_modules.networks.timm_network import TimmNetwork


class BBNNetwork(Network):
    """A ResNet with two branches and one classifier on both.

    The branches share all layers except the last residual block (section 4.2), of which each has
    its own: a bottleneck in ResNet-50, two plain 3 x 3 convolutions in ResNet-18. Both branches
    start from the weights of the block that they replace; in the published code they start from
    random weights.

    Args:
        encoder: A ResNet of timm, or one of its relatives; its classifier is removed.
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) to logits (B, K), with both branches weighted equally (alpha = 1/2).

    Raises:
        ModelError: The encoder is not a ResNet.
    """

    def __init__(self, encoder: TimmNetwork, num_classes: int = 7) -> None:
        super().__init__()
        if not isinstance(encoder.model, ResNet):
            raise ModelError(
                "BBN splits the last residual block of its encoder into branches: set the encoder "
                "to a ResNet, such as resnet50.a1_in1k."
            )
        encoder.drop_head()
        self.encoder = encoder
        *shared, last = encoder.model.get_submodule("layer4").children()
        encoder.model.layer4 = nn.Sequential(*shared)
        self.conventional = last
        self.rebalancing = copy.deepcopy(last)
        self.classifier = nn.Linear(2 * encoder.channels, num_classes)

    def mixed(self, natural: Tensor, reversed_: Tensor, alpha: float) -> Tensor:
        """Logits (B, K) of 2 [alpha f_c; (1 - alpha) f_r], one batch of images per branch.

        Args:
            natural: Images (B, 3, H, W) of the natural distribution, for the conventional branch.
            reversed_: Images (B, 3, H, W) of the reversed distribution, for the other branch.
            alpha: Weight of the conventional branch, in [0, 1].
        """
        # One after the other, so that batch norm sees one distribution at a time.
        f_c = self.conventional(self.encoder.features(natural)).mean((2, 3))
        f_r = self.rebalancing(self.encoder.features(reversed_)).mean((2, 3))
        return self.classifier(2 * torch.cat([alpha * f_c, (1 - alpha) * f_r], dim=1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder.features(images)
        branches = (self.conventional, self.rebalancing)
        pooled = [branch(features).mean((2, 3)) for branch in branches]
        return self.classifier(torch.cat(pooled, dim=1))
