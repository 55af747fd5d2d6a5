"""Several experts on one trunk: heads on shared vectors, or on last stages of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.heads import Head, LinearHead
from lightning_modules.networks.network import Network
from lightning_modules.networks.probe import cut
from lightning_modules.networks.timm_network import TimmNetwork


class ExpertHeads(Head):
    """Heads of several experts, which predict by the weighted sum of their logits.

    All weights are 1/E, which is the mean, until :meth:`weigh` sets others. Checkpoints do not hold
    them, because they are chosen for the images that are classified.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        number: Number of experts E, at least 1.
        head: Factory of each expert's head; None is
            :class:`~lightning_modules.networks.heads.LinearHead`.

    Shape:
        Vectors (B, C), or (E, B, C) if each expert has vectors of its own, to logits (B, K).

    Raises:
        ModelError: ``number`` is less than 1.

    Examples:
        >>> heads = ExpertHeads(width=16, num_classes=7, number=3)
        >>> heads.experts(torch.rand(4, 16)).shape, heads(torch.rand(4, 16)).shape
        (torch.Size([3, 4, 7]), torch.Size([4, 7]))
    """

    weight: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        number: int = 3,
        head: Callable[[int, int], Head] | None = None,
    ) -> None:
        super().__init__(width, num_classes)
        if number < 1:
            raise ModelError(f"number={number} experts cannot classify: set at least 1.")
        self.number = number
        self.heads = nn.ModuleList((head or LinearHead)(width, num_classes) for _ in range(number))
        self.register_buffer("weight", torch.full((number,), 1 / number), persistent=False)

    def experts(self, vectors: Tensor) -> Tensor:
        """Vectors (B, C) or (E, B, C) to the logits (E, B, K) of each expert."""
        per_head = vectors if vectors.ndim == 3 else [vectors] * self.number
        return torch.stack(
            [head(head_vectors) for head, head_vectors in zip(self.heads, per_head, strict=True)]
        )

    def weigh(self, weight: Tensor) -> None:
        """Set the weights (E,) of the experts' logits."""
        self.weight.copy_(weight)

    def forward(self, vectors: Tensor) -> Tensor:
        return (self.weight[:, None, None] * self.experts(vectors)).sum(0)


class ExpertNetwork(Network):
    """A trunk that all experts share, with last stages of their own, and their heads.

    The stages of all experts start from the same weights, those of the encoder, and the heads from
    different random ones. In the published code of RIDE (https://arxiv.org/abs/2010.01809), SADE
    and BalPoE everything starts from random weights, and experts have the last two stages of a
    ResNet, in RIDE and SADE with three quarters of their channels.

    Args:
        encoder: Pretrained network; its classifier is removed.
        head: Factory of the experts' heads from the size of the vectors and the number of classes;
            None is :class:`ExpertHeads` with three linear heads.
        own_stages: Number of last stages that each expert has of its own; for ResNets and
            EfficientNets. 0 shares the whole encoder.
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, K).

    Raises:
        ModelError: The encoder has no such stages.
    """

    def __init__(
        self,
        encoder: TimmNetwork,
        head: Callable[[int, int], ExpertHeads] | None = None,
        own_stages: int = 0,
        num_classes: int = 7,
    ) -> None:
        super().__init__()
        width = encoder.width
        encoder.model.reset_classifier(0)
        self.head = (head or ExpertHeads)(width, num_classes)
        self.stages = nn.ModuleList()
        if own_stages:
            last_stages = cut_stages(encoder.model, own_stages)
            self.stages.extend(copy.deepcopy(last_stages) for _ in range(self.head.number))
        self.encoder = encoder

    def vectors(self, images: Tensor) -> Tensor:
        """Images to the vectors (B, C) of all experts, or (E, B, C) of each."""
        if not self.stages:
            return self.encoder.encode(images)
        features = self.encoder.features(images)
        return torch.stack([stages(features) for stages in self.stages])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.vectors(images))


def cut_stages(model: Any, stages: int) -> nn.Sequential:
    """Remove the last stages of a ResNet or an EfficientNet, with all that follows them.

    Args:
        model: Network of timm without classifier.
        stages: Number of stages to remove.

    Returns:
        The removed layers: feature maps (B, C, h, w) to vectors (B, C).

    Raises:
        ModelError: The network is of another kind, or has no more stages than that.
    """
    if not isinstance(model, ResNet):
        return cut(model, stages)
    names = [name for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(model, name)]
    if not 0 < stages < len(names):
        raise ModelError(f"own_stages={stages} is out of range: set 0 to {len(names) - 1}.")
    removed = nn.Sequential(*(getattr(model, name) for name in names[-stages:]), model.global_pool)
    for name in names[-stages:]:
        setattr(model, name, nn.Identity())
    return removed
