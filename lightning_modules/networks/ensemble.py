"""Ensembles of networks and of orientations of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.network import Network

# Flips and quarter turns: a lesion has no canonical orientation.
ORIENTATIONS = 8


class Ensemble(Network):
    """Mean probability of several networks (https://arxiv.org/abs/1612.01474, section 2.4).

    With several ``views`` the mean is also over flipped and turned copies of the image (test-time
    augmentation).

    Args:
        members: Networks from images to logits.
        views: Number of orientations, from 1 (the image itself) to 8 (all symmetries of the
            square).

    Shape:
        Images (B, 3, H, W) to the logarithm (B, K) of the mean probabilities; H = W if images are
        turned, that is for more than 4 orientations.
    """

    def __init__(self, members: Sequence[nn.Module], views: int = 1) -> None:
        super().__init__()
        if not 1 <= views <= ORIENTATIONS:
            raise ModelError(
                f"views={views} is out of range: set 1 to {ORIENTATIONS} orientations of an image."
            )
        self.members = nn.ModuleList(members)
        self.views = views

    def forward(self, images: Tensor) -> Tensor:
        log_probabilities = [
            member(orientation(images, number)).float().log_softmax(1)
            for member in self.members
            for number in range(self.views)
        ]
        count = torch.tensor(float(len(log_probabilities)))
        return torch.stack(log_probabilities).logsumexp(0) - count.log()


def orientation(images: Tensor, number: int) -> Tensor:
    """Images (B, C, H, W) in one of eight orientations.

    Args:
        images: Images (B, C, H, W); H = W from number 4 on.
        number: 0 is the image itself, 1 to 3 are its flips, 4 to 7 the transposes of 0 to 3.
    """
    flips = [(), (-1,), (-2,), (-1, -2)][number % 4]
    images = images.flip(flips) if flips else images
    return images.transpose(-1, -2) if number >= 4 else images
