"""Autoencoder, with an optional edge filter before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from lightning_modules.codecs.codec import Codec, Reconstruction, centred, from_centred
from lightning_modules.codecs.cosine_initialization import initialize_with_cosines
from lightning_modules.errors import ModelError


class ZeroMean(nn.Module):
    """Subtract the means of kernels (C, 1, h, w), so that they do not respond to flat areas."""

    def forward(self, kernels: Tensor) -> Tensor:
        return kernels - kernels.mean((2, 3), keepdim=True)


class EdgeFilter(nn.Module):
    """Trainable physical layer: three 3 x 3 kernels of zero mean on each color.

    They are initialized as the Laplacian and Sobel's kernels in x and y. Doctor proposes such a
    layer, see :class:`Autoencoder`, without describing it.

    Args:
        concatenate: Whether to output the image beside its edges, or the edges alone.

    Shape:
        Images (B, 3, H, W) to (B, ``channels``, H, W): the image, and the edges of red, green and
        blue by each kernel.
    """

    def __init__(self, concatenate: bool = True) -> None:
        super().__init__()
        self.concatenate, self.channels = concatenate, 12 if concatenate else 9
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        laplacian = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
        kernels = torch.stack([laplacian, sobel, sobel.T])[:, None]
        self.filter = nn.Conv2d(3, 9, 3, padding=1, padding_mode="replicate", groups=3, bias=False)
        self.filter.weight = nn.Parameter(kernels.repeat(3, 1, 1, 1))
        register_parametrization(self.filter, "weight", ZeroMean())

    def forward(self, images: Tensor) -> Tensor:
        edges = self.filter(images).unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)
        return torch.cat([images, edges], dim=1) if self.concatenate else edges


class Autoencoder(Codec):
    """Autoencoder of two strided convolutions down to a latent and two up.

    As in Doctor, "Insights from HAM10000 classification using learned compression"
    (https://deepimaging.io), compression is counted in values: 128 x 128 x 3 = 49,152 to
    32 x 32 x C, so that C = 8, 16 and 32 are 6x, 3x and 1.5x. The latent consists of real numbers
    and has no bits to count.

    The layers are our own. There is no ReLU between the skips, so that a linear code of the image
    passes unchanged, and training starts from such a code: the latent is the C coarsest cosines of
    each 4 x 4 pixels and their sum the image, as in JPEG without its rounding.

    Args:
        latent_channels: Number of channels C of the latent, at least 1.
        width: Number of channels of the layers between; 12 hold the values of 2 x 2 pixels.
        physical: Layer before the first, with an attribute ``channels``, such as
            :class:`EdgeFilter`; its first three channels replace the colors.

    Shape:
        Images (B, 3, H, W), H and W multiples of 4, to latent (B, C, H / 4, W / 4) and back.

    Examples:
        >>> reconstruction = Autoencoder(latent_channels=8)(torch.rand(1, 3, 32, 32))
        >>> reconstruction.image.shape, reconstruction.latent.shape
        (torch.Size([1, 3, 32, 32]), torch.Size([1, 8, 8, 8]))
    """

    stride = 4

    def __init__(
        self, latent_channels: int = 8, width: int = 64, physical: EdgeFilter | None = None
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        channels = 3 if physical is None else physical.channels
        self.g_a = nn.Sequential(
            physical or nn.Identity(),
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            ResidualBlock(width),
            nn.Conv2d(width, latent_channels, 5, stride=2, padding=2),
        )
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(latent_channels, width, 4, stride=2, padding=1),
            ResidualBlock(width),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        )
        initialize_with_cosines(self.g_a, self.g_s)

    def reconstruct(self, images: Tensor) -> Reconstruction:
        latent = self.encode(images)
        return Reconstruction(self.decode(latent), latent=latent)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) to the latent (B, C, H / 4, W / 4)."""
        require_multiple(images, self.stride)
        return self.g_a(centred(images))

    def decode(self, code: Tensor) -> Tensor:
        return from_centred(self.g_s(code))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a skip, initially the identity.

    Without batch norm, which in training would make an image depend on the rest of the batch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(F.relu(self.first(F.relu(features))))


def require_multiple(images: Tensor, stride: int) -> None:
    """Raise an error unless ``stride`` divides height and width of images (B, C, H, W)."""
    height, width = images.shape[2:]
    if height % stride or width % stride:
        raise ModelError(
            f"Images are {height} x {width}, but this codec reduces them to 1/{stride}: set "
            f"--data.size to a multiple of {stride}."
        )
