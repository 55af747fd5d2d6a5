"""Several networks, or several views of an image, that decide together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError

# Flips and quarter turns, which a lesion does not know from what it is.
VIEWS = 8


class Ensemble(nn.Module):
    """Mean of the probabilities of networks (https://arxiv.org/abs/1612.01474, section 2.4).

    With ``views`` it is also the mean over flipped and turned images, which is test-time
    augmentation.

    Args:
        members: Images to logits.
        views: How many of the eight symmetries of the square; 1 is the image itself.

    Shape:
        Images (B, 3, H, W), H = W if turned, to logits (B, K): the logarithms of the means.
    """

    def __init__(self, members: Sequence[nn.Module], views: int = 1) -> None:
        super().__init__()
        if not 1 <= views <= VIEWS:
            raise ModelError(f"The square has {VIEWS} symmetries: views must be 1 to {VIEWS}.")
        self.members, self.views = nn.ModuleList(members), views

    def forward(self, images: Tensor) -> Tensor:
        each = [
            member(view(images, number)).float().log_softmax(1)
            for member in self.members
            for number in range(self.views)
        ]
        return torch.stack(each).logsumexp(0) - torch.tensor(float(len(each))).log()


def view(images: Tensor, number: int) -> Tensor:
    """One of the eight symmetries of images (B, C, H, W); the first four are flips alone."""
    flips = [(), (-1,), (-2,), (-1, -2)][number % 4]
    images = images.flip(flips) if flips else images
    return images.transpose(-1, -2) if number >= 4 else images
