"""What all codecs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.codecs.entropy import lower_bound


class Reconstruction(NamedTuple):
    """What a codec makes of images.

    Args:
        image: x-hat (B, 3, H, W) in [0, 1].
        bits: Of each image's code (B,); in training an estimate with a gradient, otherwise
            counted. None where the code is no bits.
        latent: (B, C, h, w), which ``image`` was decoded from; None where there is none.
    """

    image: Tensor
    bits: Tensor | None = None
    latent: Tensor | None = None


class Codec(nn.Module, ABC):
    """Images (B, 3, H, W) in [0, 1] to their reconstruction, each by itself.

    ``decode(encode(images))`` is the image of the reconstruction; what lies between is the
    codec's own.
    """

    def forward(self, images: Tensor) -> Reconstruction:
        # In full precision: near 1 bfloat16 has steps of 0.004, a quarter of the errors at stake.
        with torch.autocast(images.device.type, enabled=False):
            return self.reconstruct(images.float())

    def image(self, images: Tensor) -> Tensor:
        """The image of the reconstruction alone (B, 3, H, W): no bits are counted for it."""
        with torch.autocast(images.device.type, enabled=False):
            return self.decode(self.encode(images.float())).to(images.device)

    @abstractmethod
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """As ``forward``, which adds full precision."""

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """The code of images (B, 3, H, W)."""

    @abstractmethod
    def decode(self, code: Any) -> Tensor:
        """Images (B, 3, H, W) of a code."""

    def update(self) -> None:
        """Makes ready to count bits, after training; what counts without has nothing to do."""


def centred(images: Tensor) -> Tensor:
    """Images in [0, 1] to about zero mean and unit variance, as networks learn from them best."""
    return 4 * images - 2


def from_centred(outputs: Tensor) -> Tensor:
    """Back to [0, 1]; what lies outside has a gradient that leads inside."""
    return -lower_bound(-lower_bound(outputs / 4 + 0.5, 0.0), -1.0)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] to whole numbers from 0 to 255, in their own type."""
    return images.clamp(0, 1).mul(255).round()
