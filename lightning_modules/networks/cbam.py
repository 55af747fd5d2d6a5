"""CBAM, and timm backbones that end in it: for diagnoses, or for every level of a taxonomy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.timm_network import TimmNetwork
from lightning_modules.taxonomy import Taxonomy


class ChannelAttention(nn.Module):
    """What to look for: sigmoid(MLP(mean x) + MLP(max x)), eq. 2.

    Shape:
        Features (B, C, h, w) to weights (B, C, 1, 1) in (0, 1).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        # The paper's MLP has no biases, the published code's has; ours too.
        self.mlp = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.mlp(features.mean((2, 3))) + self.mlp(features.amax((2, 3)))
        return pooled.sigmoid()[..., None, None]


class SpatialAttention(nn.Module):
    """Where to look: sigmoid(BN(conv7x7([max x; mean x]))) over the channels, eq. 3.

    The batch norm, and the maximum first where the paper has the mean, are the published code's.

    Shape:
        Features (B, C, h, w) to weights (B, 1, h, w) in (0, 1).
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, features: Tensor) -> Tensor:
        pooled = torch.cat([features.amax(1, keepdim=True), features.mean(1, keepdim=True)], dim=1)
        return self.norm(self.conv(pooled)).sigmoid()


class CBAM(nn.Module):
    """Convolutional block attention module (https://arxiv.org/abs/1807.06521, eq. 1).

    Args:
        channels: Of the features.
        reduction: Of the MLP of the channel attention.

    Shape:
        Features (B, C, h, w) to attended features (B, C, h, w) and the spatial weights (B, h, w).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelAttention(channels, reduction), SpatialAttention()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        features = features * self.channel(features)
        weights = self.spatial(features)
        return features * weights, weights.squeeze(1)


class CBAMNetwork(TimmNetwork):
    """A timm model with CBAM on its last feature map.

    The paper puts one CBAM into every block; here there is one before the head, which any backbone
    takes without invalidating the pretrained weights in between.

    Args:
        name: timm's name of a convolutional network.
        reduction: Of the MLP of the channel attention; 0 leaves the attention out.
        **kwargs: As for :class:`TimmNetwork`.

    Attributes:
        keep_attention: Whether to keep the last batch's maps.
        attention: ``spatial`` to (B, h, w), when kept.
    """

    def __init__(self, name: str, reduction: int = 16, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.keep_attention = False
        self.attention: dict[str, Tensor] = {}
        self.cbam = CBAM(channels(self), reduction) if reduction else None

    def features(self, images: Tensor) -> Tensor:
        features = super().features(images)
        if self.cbam is None:
            return features
        features, weights = self.cbam(features)
        if self.keep_attention:
            self.attention = {"spatial": weights.detach().float()}
        return features


class MultiHeadNetwork(CBAMNetwork):
    """One linear head for each level of the taxonomy, on the same attended and pooled features.

    Args:
        name: timm's name of the backbone, a convolutional network.
        class_names: Names of the K classes; the command line takes them from the data.
        depth: Levels of the :class:`Taxonomy`.
        drop_rate: Dropout before the heads.
        **kwargs: As for :class:`CBAMNetwork`.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, K) of the classes.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        depth: int = 2,
        drop_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, num_classes=0, **kwargs)
        drop_head(self)
        self.taxonomy, self.dropout = Taxonomy(class_names, depth), nn.Dropout(drop_rate)
        self.heads = nn.ModuleList(
            nn.Linear(channels(self), len(names)) for names in self.taxonomy.levels
        )

    def levels(self, images: Tensor) -> list[Tensor]:
        """Logits (B, C) over the C nodes of each level, coarse to fine."""
        pooled = self.dropout(self.features(images).mean((2, 3)))
        return [head(pooled) for head in self.heads]

    def forward(self, images: Tensor) -> Tensor:
        return self.levels(images)[-1]


def channels(network: TimmNetwork) -> int:
    """Channels of ``network.features``."""
    return network.model.num_features


def drop_head(network: TimmNetwork) -> None:
    """Removes what timm has behind the last feature map: 120 M of VGG-16's 134 M parameters.

    DistributedDataParallel stops at parameters without a gradient.
    """
    if hasattr(network.model, "prune_intermediate_layers"):
        network.model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)


def drop_last_pool(network: TimmNetwork) -> None:
    """Leaves out the max-pool at the end of a VGG, for maps of twice the resolution."""
    layers = getattr(network.model, "features", None)
    if isinstance(layers, nn.Sequential) and isinstance(layers[-1], nn.MaxPool2d):
        layers[-1] = nn.Identity()
