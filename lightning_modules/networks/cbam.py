"""CBAM, and timm networks with CBAM on their last feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.network import HierarchicalNetwork
from lightning_modules.networks.timm_network import TimmNetwork
from lightning_modules.taxonomy import Taxonomy, Tree


class ChannelAttention(nn.Module):
    """Channel attention, sigmoid(MLP(mean x) + MLP(max x)), eq. 2.

    Args:
        channels: Number of channels C of the features.
        reduction: Factor by which the hidden layer of the MLP is narrower than C.

    Shape:
        Features (B, C, h, w) to weights (B, C, 1, 1) in (0, 1).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        # Biases as in the published code; the paper's MLP has none.
        self.mlp = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.mlp(features.mean((2, 3))) + self.mlp(features.amax((2, 3)))
        return pooled.sigmoid()[..., None, None]


class SpatialAttention(nn.Module):
    """Spatial attention, sigmoid(BN(conv7x7([max x; mean x]))) over the channels, eq. 3.

    The batch norm and the order of maximum and mean follow the published code; the paper has no
    batch norm, and the mean first.

    Args:
        kernel_size: Side of the convolution's kernel, in cells of the feature map.

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
        channels: Number of channels C of the features.
        reduction: Factor by which the MLP of the channel attention narrows the features.

    Shape:
        Features (B, C, h, w) to attended features (B, C, h, w) and the spatial weights (B, h, w).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        features = features * self.channel(features)
        weights = self.spatial(features)
        return features * weights, weights.squeeze(1)


class CBAMNetwork(TimmNetwork):
    """A timm network with CBAM on its last feature map.

    The paper has a CBAM in every block. Here there is a single one before the head, which works
    with any convolutional network and leaves its pretrained weights valid.

    Args:
        name: timm's name of a convolutional network.
        reduction: Factor by which the MLP of the channel attention narrows the features; 0 leaves
            out the attention.
        **kwargs: As for :class:`TimmNetwork`.

    Attributes:
        keep_attention: Whether to keep the attention maps of the last batch.
        attention: Attention maps (B, h, w) under the key ``spatial``, if they are kept.
    """

    def __init__(self, name: str, reduction: int = 16, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.keep_attention = False
        self.attention: dict[str, Tensor] = {}
        self.cbam = CBAM(self.channels, reduction) if reduction else None

    def features(self, images: Tensor) -> Tensor:
        features = super().features(images)
        if self.cbam is None:
            return features
        features, weights = self.cbam(features)
        if self.keep_attention:
            self.attention = {"spatial": weights.detach().float()}
        return features


class MultiHeadNetwork(CBAMNetwork, HierarchicalNetwork):
    """A CBAM network with a linear head for each level of the taxonomy.

    Args:
        name: timm's name of a convolutional network.
        class_names: Names of the K classes; the command line takes them from the data.
        taxonomy: Tree of the classes, see :class:`Taxonomy`; the command line takes it from the
            data.
        depth: Number of levels of the :class:`Taxonomy`, 1 to 3.
        drop_rate: Dropout probability before the heads, in [0, 1).
        **kwargs: As for :class:`CBAMNetwork`.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, K) of the classes.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        taxonomy: Tree | None = None,
        depth: int = 2,
        drop_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, num_classes=0, **kwargs)
        self.drop_head()
        self.taxonomy = Taxonomy(class_names, taxonomy, depth)
        self.dropout = nn.Dropout(drop_rate)
        self.heads = nn.ModuleList(
            nn.Linear(self.channels, len(names)) for names in self.taxonomy.levels
        )

    def levels(self, images: Tensor) -> list[Tensor]:
        pooled = self.dropout(self.features(images).mean((2, 3)))
        return [head(pooled) for head in self.heads]

    def forward(self, images: Tensor) -> Tensor:
        return self.levels(images)[-1]
