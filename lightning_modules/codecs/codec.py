"""Base class of codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.codecs.entropy import lower_bound


class Reconstruction(NamedTuple):
    """Output of a codec.

    Args:
        image: Reconstructed images x-hat (B, 3, H, W) in [0, 1].
        bits: Number of bits (B,) of the code of each image: in training an estimate with a
            gradient, otherwise counted. None for codecs that do not count bits.
        latent: Latent (B, C, h, w) from which ``image`` was decoded; None for codecs without one.
    """

    image: Tensor
    bits: Tensor | None = None
    latent: Tensor | None = None


class Codec(nn.Module, ABC):
    """Base class of codecs: images (B, 3, H, W) in [0, 1] to their reconstruction.

    Each image is coded by itself, and ``decode(encode(images))`` is its reconstruction; the form of
    the code is up to the codec.
    """

    def forward(self, images: Tensor) -> Reconstruction:
        # In full precision: near 1 bfloat16 has steps of 0.004, a quarter of the errors at stake.
        with torch.autocast(images.device.type, enabled=False):
            return self.reconstruct(images.float())

    def image(self, images: Tensor) -> Tensor:
        """Reconstructed images (B, 3, H, W) alone, without counting bits."""
        with torch.autocast(images.device.type, enabled=False):
            return self.decode(self.encode(images.float())).to(images.device)

    @abstractmethod
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Reconstruct images (B, 3, H, W); ``forward`` calls it in full precision."""

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """Encode images (B, 3, H, W)."""

    @abstractmethod
    def decode(self, code: Any) -> Tensor:
        """Decode to images (B, 3, H, W)."""

    def update(self) -> None:
        """Prepare the entropy coder after training; no-op for codecs without one."""


def centred(images: Tensor) -> Tensor:
    """Shift and scale images in [0, 1] to about zero mean and unit variance."""
    return 4 * images - 2


def from_centred(outputs: Tensor) -> Tensor:
    """Scale back to [0, 1]; values outside are clipped, with a gradient that leads inside."""
    return -lower_bound(-lower_bound(outputs / 4 + 0.5, 0.0), -1.0)


def to_bytes(images: Tensor) -> Tensor:
    """Round images in [0, 1] to whole numbers from 0 to 255, in their own dtype."""
    return images.clamp(0, 1).mul(255).round()
